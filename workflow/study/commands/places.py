"""Where a verb of the study reads and writes, checked before it reads anything, as for those of pat (pat/io/places.py).

Its files are known by their fields or by what their makers write into them. Sets of data have no such mark: they are replaced where
the content is the same, or with --force.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pat.errors import UserError
from pat.io.marks import Folder, Kind, Record, check_replaceable, special
from pat.io.places import WRITES, Force, Place, check_apart, given_values, names_file, roles_of
from study.commands.errors import errors_reported
from study.commands.figure_mark import bears_mark

TABLES = Folder("study tables", "cells.csv", ("*.csv", "*.md", "*.tex", "*.html"), sign="config_hash_", formerly=("tables.py",))
REFERENCE = Folder("study reference", "origin.json", (), formerly=("reference.py",))
CELL = Record(frozenset({"schema", "tasks", "tuning", "provenance"}))
REPEATS = Record(frozenset({"schema", "kind", "provenance"}), {"kind": "repeats"})


@dataclass(frozen=True)
class Unmarked:
    """Files without a mark: what writes them has to know whether it may replace other content."""


@dataclass(frozen=True)
class Pictures:
    """A figure as .png and .pdf, and its data as .csv, in a folder whose other files stay."""

    name: str


@dataclass(frozen=True)
class Page:
    """A page of HTML that names its maker at its beginning."""

    sign: str


PAGE = Page('<meta name="generator" content="study report">')
BEGINNING = 1000
"""Bytes of a page in which its sign stands."""
Written = Kind | Unmarked | Pictures | Page


def guarded(
    kind: Written | Callable[[Mapping[str, Any]], Written] | Mapping[str, Written],
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator for a verb's main function, which checks its places and adds --force.

    `kind` is what it writes, or says so from the values that it is called with, or what each of its options names. The function is given
    `force` where it has such a parameter itself.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        roles = roles_of(function)
        own = inspect.signature(function, eval_str=True)
        option = inspect.Parameter("force", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Force)
        takes_force = "force" in own.parameters
        signature = own if takes_force else own.replace(parameters=[*own.parameters.values(), option])

        @functools.wraps(function)
        def checked(*given: Any, **named: Any) -> None:
            values = given_values(signature, given, named)
            force = bool(values["force"] if takes_force else values.pop("force"))
            with errors_reported():
                said = kind(values) if callable(kind) else kind
                written = {name: said[name] if isinstance(said, Mapping) else said for name, role in roles.items() if role is WRITES}
                places = [
                    (name, Place(f"--{name}", Path(each), role, whole=isinstance(written.get(name), Folder)))
                    for name, role in roles.items()
                    for each in _each(values.get(name))
                    if not isinstance(each, str) or names_file(each)
                ]
                check_apart([place for _, place in places])
                for name, place in places:
                    if problem := special(place.path):
                        raise UserError(f"{place}: {problem}")
                    if name in written:
                        _check(place.path, written[name], force=force)
            function(**values)

        checked.__annotations__ = {**typing.get_type_hints(function, include_extras=True), "force": Force}
        checked.__signature__ = signature  # type: ignore[attr-defined]
        return checked

    return decorate


def _each(given: Any) -> list[Any]:
    if given is None:
        return []
    return list(given) if isinstance(given, list | tuple) else [given]


def _check(out: Path, kind: Written, *, force: bool) -> None:
    if isinstance(kind, Unmarked):
        return
    if isinstance(kind, Page):
        _check_page(out, kind, force=force)
        return
    if not isinstance(kind, Pictures):
        check_replaceable(out, kind, force=force)
        return
    for ending in ("png", "pdf", "csv"):
        path = out / f"{kind.name}.{ending}"
        if problem := special(path):
            raise UserError(f"{path}: {problem}")
        if not force and path.is_file() and path.stat().st_size and not bears_mark(path):
            raise UserError(f"{path}: is there already and is no figure of ours; name another folder, or give --force to replace it")


def _check_page(out: Path, kind: Page, *, force: bool) -> None:
    if out.is_dir():
        raise UserError(f"{out}: is a folder, where a file of HTML is to be written; name a file in it")
    if force or not out.exists():
        return
    with out.open("rb") as stream:
        beginning = stream.read(BEGINNING)
    if beginning and kind.sign.encode() not in beginning:
        raise UserError(f"{out}: is there already and is no page of ours; name another file, or give --force to replace it")
