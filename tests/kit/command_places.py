"""Every command that writes, the places that it reads and writes, and whole command lines for it."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import typer

from pat import cli
from pat.io import marks
from pat.io.marks import Folder, Kind
from pat.io.places import KEEPS, READS, WRITES, Role, roles_of
from study import cli as study_cli
from study.figures import command as figures
from study.figures.drawings import DRAWINGS

MAKES_AS = {"prepare": "refit-readers"}
"""Verbs whose output is of another verb's kind."""
WITHOUT_OUTPUT = {"validate", "explain", "push"}
READ_ONLY = {"validate", "explain", "name", "summary", "times", "seal", "restore", "failures"}
"""Verbs of the study that print, or act on the workflow's own folders, which no option names."""
IN_PLACE = {"benchmark-tables", "join"}
"""They change a marked block of a document, or add to a folder of results, which they are given for that."""


@dataclass(frozen=True)
class Command:
    """A verb: how it is called, its parameters by name, and their roles."""

    words: tuple[str, ...]
    function: Callable[..., Any]

    def __str__(self) -> str:
        return " ".join(self.words)

    @cached_property
    def roles(self) -> dict[str, Role]:
        return roles_of(self.function)

    @property
    def kind(self) -> Kind | None:
        return marks.KINDS.get(MAKES_AS.get(str(self), str(self)))

    @property
    def makes_folder(self) -> bool:
        return isinstance(self.kind, Folder)

    def parameters(self) -> dict[str, inspect.Parameter]:
        return dict(inspect.signature(self.function).parameters)

    def arguments(self, folder: Path, **places: Path | str) -> list[str]:
        """Return a whole command line: every place that is read is there, everything else has some value; `places` replace them."""
        words = list(self.words)
        for name, parameter in self.parameters().items():
            if self.function is figures.main and name == "name":
                continue  # it is among the words
            role = self.roles.get(name)
            if name in places:
                value: Path | str | None = places[name]
            elif role is READS and "Path" in str(parameter.annotation):
                value = folder / name
            elif role in (WRITES, KEEPS):
                value = folder / f"new {name}"
            elif parameter.default is inspect.Parameter.empty:
                kind = parameter.annotation.__origin__
                value = "0.5" if kind is float or "float" in str(kind) else "8" if kind is int else "{}"
            else:
                continue
            words += [*option_of(name, parameter), str(value)]
        return words


def option_of(name: str, parameter: inspect.Parameter) -> list[str]:
    """Return what stands before a parameter's value on the command line: nothing before an argument."""
    told = next(it for it in parameter.annotation.__metadata__ if isinstance(it, typer.models.ParameterInfo))
    if isinstance(told, typer.models.ArgumentInfo):
        return []
    declared = [str(each) for each in (told.default, *(told.param_decls or ())) if str(each).startswith("--")]
    return [*declared, f"--{name.replace('_', '-')}"][:1]


def verbs() -> Iterator[Command]:
    """Yield all verbs of the command line, those of its groups with the group's name before them."""
    groups = [("", cli.app), *((f"{group.name} ", group.typer_instance) for group in cli.app.registered_groups)]
    for prefix, app in groups:
        assert app is not None
        for command in app.registered_commands:
            assert command.callback is not None
            name = command.name or command.callback.__name__.replace("_", "-")
            yield Command((*prefix.split(), name), command.callback)


def of_the_study() -> Iterator[Command]:
    """Yield the study's verbs that write; the one that draws once for every figure."""
    for verb, module in study_cli.VERBS.items():
        if verb == "figure":
            yield from (Command((verb, name), figures.main) for name in DRAWINGS)
        elif verb not in READ_ONLY | IN_PLACE:
            yield Command((verb,), importlib.import_module(module).main)


VERBS = [command for command in verbs() if str(command) not in WITHOUT_OUTPUT]
COMMANDS = [*VERBS, *of_the_study()]
