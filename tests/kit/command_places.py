"""Every command that writes, the places that it reads and writes, and whole command lines for it."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from pat import cli
from pat.io import marks
from pat.io.marks import Folder, Kind
from pat.io.places import KEEPS, READS, WRITES, Role, roles_of
from study.commands.sets import command_line
from study.figures import command as figures
from tests.kit.project import ROOT

MAKES_AS = {"prepare": "refit-readers"}
"""Verbs whose output is of another verb's kind."""
WITHOUT_OUTPUT = {"validate", "explain"}
SCRIPTS = ROOT / "workflow" / "study"
READ_ONLY_SCRIPTS = {
    "study.__main__",
    "study.report.summary",
    "study.versions.seals",
    "study.versions.restore",
    "study.plan.jobs",
    "study.plan.failures",
}
"""They print, or act on the workflow's own folders, which no option names."""
IN_PLACE_SCRIPTS = {"study.report.benchmark_table"}
"""They change a marked block of a document, which they are given for that."""


@dataclass(frozen=True)
class Command:
    """A verb or a script: how it is called, its parameters by name, and their roles."""

    words: tuple[str, ...]
    function: Callable[..., Any]

    def __str__(self) -> str:
        return " ".join(self.words)

    @property
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
                value = "0.5" if "float" in str(parameter.annotation) else "{}"
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


def scripts() -> Iterator[Command]:
    """Yield all scripts with a command line."""
    for path in sorted(SCRIPTS.rglob("*.py")):
        text = path.read_text()
        script = ".".join(path.relative_to(SCRIPTS.parent).with_suffix("").parts)
        if 'if __name__ == "__main__"' not in text or script in READ_ONLY_SCRIPTS | IN_PLACE_SCRIPTS:
            continue
        module = importlib.import_module(script)
        name = next((name for name in ("main", "write") if f"typer.run({name})" in text), None)
        yield Command((script,), getattr(module, name) if name else command_line(module.prepare))
    for name in figures.DRAWINGS:
        yield Command(("figure", name), figures.main)


VERBS = [command for command in verbs() if str(command) not in WITHOUT_OUTPUT]
COMMANDS = [*VERBS, *scripts()]
