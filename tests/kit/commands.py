"""The verbs of pat and the modules of the study that are commands, called in this process through the same doors as on the command line."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

import pytest
import typer

from pat import cli
from study import cli as study_cli
from study.commands.sets import command_line


def run(arguments: Sequence[str]) -> None:
    """Run a verb of pat or of the study, or a module of the study, as its command line does; ends in SystemExit."""
    if arguments[0] in study_cli.VERBS:
        study_cli.main(arguments)
    if not arguments[0].startswith("study."):
        cli.main(arguments)
    module = importlib.import_module(arguments[0])
    script = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    own = next((getattr(module, name) for name in ("main", "write") if hasattr(module, name)), None)
    script.command()(own or command_line(module.prepare))
    script(list(arguments[1:]))


def outcome(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    """Run a command; return its exit status and what it said. Any other exception than SystemExit would be a traceback."""
    with pytest.raises(SystemExit) as ended:
        run(arguments)
    code = ended.value.code
    return (1, code) if isinstance(code, str) else (code, capsys.readouterr().err)
