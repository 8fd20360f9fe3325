"""Where a command reads and writes, checked before it reads anything: nothing of the user's is in the way of what it will replace.

An option says by its role what it names. `guarded` makes a verb out of a function: it checks the places, opens the log, and adds the
options --log and --plugin. The marks by which outputs are known are in marks.py.
"""

from __future__ import annotations

import functools
import inspect
import os
import typing
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.models import ArgumentInfo

from pat.errors import UserError
from pat.io import marks, plugins
from pat.io.marks import Folder, Kind, Record, check_log, check_replaceable, special
from pat.io.progress import log_to
from pat.io.resume_folder import check_run_folder
from pat.io.storage import check_writable
from pat.io.temporaries import sweep


@dataclass(frozen=True)
class Role:
    """What a verb does with the places that an option names."""

    does: Literal["reads", "writes", "keeps checkpoints in", "logs to"]


READS, WRITES, KEEPS, LOGS = Role("reads"), Role("writes"), Role("keeps checkpoints in"), Role("logs to")
Log = Annotated[Path | None, typer.Option(help="log file; the terminal then shows progress only"), LOGS]
Plugins = Annotated[
    list[str] | None, typer.Option(help="module, or file ending in .py, that registers families or pruners of your own; may be repeated")
]
Force = Annotated[bool, typer.Option("--force", help="replace what is in the way, though this command has not made it")]


LONGEST_NAME = 255 - len(f".{'0' * 16}.lock.tmp") - 1
"""In bytes: what file systems allow, less what a name under which an output grows has more (temporaries.py)."""
LONGEST_SHOWN = 60


@dataclass(frozen=True)
class Place:
    """One path of a command: the option that names it, its role, and whether all below it is replaced or removed."""

    option: str
    path: Path
    role: Role
    whole: bool = False

    def __str__(self) -> str:
        return f"{self.option} {self.path}"

    @property
    def real(self) -> Path:
        """The place itself, whatever links lead to it."""
        return Path(os.path.realpath(self.path))

    def is_same(self, other: Place) -> bool:
        """Return whether both are one place, by its name or by a second name of the same file."""
        if self.real == other.real:
            return True
        try:
            return self.path.samefile(other.path)
        except OSError:
            return False

    def holds(self, other: Place) -> bool:
        """Return whether the other place goes where all below this one is replaced."""
        return self.whole and self.real in other.real.parents


def guarded(verb: str, kind: Kind | None = None) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator for a verb that writes: its places are checked, its log is open and plugins are loaded before it runs.

    `kind` is what it writes to --out; that of `marks.KINDS` by default, `marks.NOTHING` for a verb that writes nowhere.
    """
    written = kind or marks.KINDS[verb]

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        roles, arguments = roles_of(function), arguments_of(function)
        own = inspect.signature(function, eval_str=True)
        log_option = inspect.Parameter("log", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Log)
        plugin_option = inspect.Parameter("plugin", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Plugins)
        signature = own.replace(parameters=[*own.parameters.values(), log_option, plugin_option])

        @functools.wraps(function)
        def checked(*given: Any, **named: Any) -> None:
            values = given_values(signature, given, named)
            log: Path | None = values.pop("log")
            named_plugins: list[str] = values.pop("plugin") or []
            read = [Place("--plugin", Path(name), READS) for name in named_plugins if plugins.is_file(name)]
            places = [*places_of(roles, values, written, arguments), *read]
            if log is not None:
                check_apart([*places, Place("--log", log, LOGS)])
                check_log(log)
            log_to(log, f"pat {verb}")
            check_apart(places)
            force = bool(values.get("force"))
            for place in places:
                _check(place, written, force=force)
                if force and place.role is WRITES and "companion" not in place.option:  # those are looked at with what they are beside
                    _check_not_of_an_input(place, places, written)
            plugins.load(named_plugins)
            function(**values)

        checked.__annotations__ = {**typing.get_type_hints(function, include_extras=True), "log": Log, "plugin": Plugins}
        checked.__signature__ = signature  # type: ignore[attr-defined]
        return checked

    return decorate


def given_values(signature: inspect.Signature, given: tuple[Any, ...], named: Mapping[str, Any]) -> dict[str, Any]:
    """Return a call's values by the names of their parameters, defaults included."""
    bound = signature.bind(*given, **named)
    bound.apply_defaults()
    return dict(bound.arguments)


def roles_of(function: Callable[..., object]) -> dict[str, Role]:
    """Return the roles of a function's parameters; those that name no place have none."""
    hints = typing.get_type_hints(function, include_extras=True)
    return {name: it for name, hint in hints.items() for it in getattr(hint, "__metadata__", ()) if isinstance(it, Role)}


def arguments_of(function: Callable[..., object]) -> frozenset[str]:
    """Return the names of a verb's arguments, which stand on the command line without an option."""
    hints = typing.get_type_hints(function, include_extras=True)
    return frozenset(name for name, hint in hints.items() for it in getattr(hint, "__metadata__", ()) if isinstance(it, ArgumentInfo))


def places_of(roles: Mapping[str, Role], values: Mapping[str, Any], kind: Kind, arguments: Container[str] = frozenset()) -> Iterator[Place]:
    """Yield the places that a call names, by an option or as one of its `arguments`, and those that are written beside its output."""
    for name, role in roles.items():
        given = values.get(name)
        option = name.upper() if name in arguments else f"--{name.replace('_', '-')}"
        for each in given if isinstance(given, list | tuple) else [] if given is None else [given]:
            if isinstance(each, str) and not names_file(each):
                continue  # settings that are not in a file
            path = Path(each)
            yield Place(option, path, role, whole=role is KEEPS or (role is WRITES and isinstance(kind, Folder)))
            if role is WRITES and isinstance(kind, Record) and path.name:
                yield from (Place(f"{option}'s companion", beside(path), role) for beside, _ in kind.beside)


def check_apart(places: list[Place]) -> None:
    """Raise UserError where a place can be none, or where what is written to one would change, replace or remove what is at another."""
    for place in places:
        _check_name(place)
    for one, other in combinations(places, 2):
        if one.role is READS and other.role is READS:
            continue
        if one.is_same(other):
            raise UserError(f"{one}: is the same place as {other}; give each a place of its own")
        for outer, inner in ((one, other), (other, one)):
            if outer.holds(inner) and outer.role is not READS:
                raise UserError(f"{inner}: lies inside {outer}, which is replaced or removed as a whole; give each a place of its own")


def _check_name(place: Place) -> None:
    text = str(place.path)
    if "\0" in text:
        raise UserError(f"{place.option} {text!r}: holds a NUL character, which no path may")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"{place.option} {text!r}: is not UTF-8 text; rename it") from None
    if text.startswith("~") and not os.path.lexists(place.path):
        raise UserError(
            f"{place}: begins with ~, which only a shell, and only at the start of a word, makes a home folder of; write it out"
        )
    if place.role is not READS and len(os.fsencode(place.path.name)) > LONGEST_NAME:
        raise UserError(f"{place.option} {shortened(text)}: its last part is longer than {LONGEST_NAME} bytes; give it a shorter name")
    if not place.whole:
        return
    here, real = Path.cwd(), place.real
    if real == here or real in here.parents:
        raise UserError(f"{place}: is the working folder or holds it; name a place of its own")
    if real == Path.home() or real in Path.home().parents or os.path.ismount(real):
        raise UserError(f"{place}: is a home folder, a disk or holds one; name a place of its own")


def _check(place: Place, kind: Kind, *, force: bool) -> None:
    if problem := special(place.path):
        raise UserError(f"{place}: {problem}")
    if "companion" in place.option:
        return
    if place.role in (WRITES, KEEPS):
        check_writable(place.path)
    if place.role is WRITES:
        sweep(place.path)
        check_replaceable(place.path, kind, force=force)
    if place.role is KEEPS:
        check_run_folder(place.path)


def _check_not_of_an_input(place: Place, places: Sequence[Place], kind: Kind) -> None:
    """Raise UserError where something of an input folder would be replaced by force, which is for what is in the way."""
    for other in places:
        if other.role is READS and other.real in place.real.parents:
            try:
                check_replaceable(place.path, kind)
            except UserError:
                raise UserError(f"{place}: is there already, in {other}, which is read; --force does not replace that") from None


def shortened(text: str) -> str:
    """Return a text as a message shows it."""
    return text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + "…"


def names_file(text: str) -> bool:
    """Return whether an option's text is the path of something; settings and shapes may be given as text instead."""
    try:
        return bool(text) and Path(text).exists()
    except (OSError, ValueError):
        return False
