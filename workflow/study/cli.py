"""The command of the study: `study VERB …`. A verb is a module with a function `main`, imported when it is called and not before."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import typer

from pat import __version__
from pat.errors import UserError
from pat.io.progress import fail
from pat.io.storage import is_refusal, refusal
from pat.io.verb import Verb
from pat.settings.mistakes import nearest

VERBS = {
    "validate": "study.experiment.validate",
    "world": "study.data.world",
    "prepare-instruct": "study.data.instruct",
    "prepare-task": "study.data.task",
    "prepare-text": "study.data.text",
    "mix": "study.data.mix",
    "collect": "study.results.collect",
    "tables": "study.tables.writing",
    "metrics": "study.tables.metrics",
    "figure": "study.figures.command",
    "summary": "study.report.summary",
    "report": "study.report.page.command",
    "times": "study.report.times",
    "progress": "study.report.progress",
    "explain": "study.results.explain",
    "name": "study.experiment.name",
    "benchmark-tables": "study.report.benchmark_table",
    "reference": "study.report.reference",
    "unpack": "study.results.unpack",
    "repeats": "study.results.repeats",
    "join": "study.results.join",
    "seal": "study.versions.seals",
    "restore": "study.versions.restore",
    "failures": "study.plan.failures",
}


def described(module: str) -> str:
    """Return what a verb does, the first line of its function's docstring, without importing what it needs."""
    found = find_spec(module)
    assert found is not None and found.origin is not None
    tree = ast.parse(Path(found.origin).read_text(encoding="utf-8"))
    named = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    function = named.get("main") or named["prepare"]  # what prepares a set has its command line from study.commands.sets
    return (ast.get_docstring(function) or "").splitlines()[0]


def overview() -> str:
    """Return the list of verbs."""
    width = max(map(len, VERBS))
    lines = [f"  {verb:{width}}  {described(module)}" for verb, module in VERBS.items()]
    return "\n".join(["Usage: study VERB [OPTIONS]; `study VERB --help` shows a verb's options.", "", *lines])


def _loaded(verb: str) -> Any:
    """Return a verb's module; ends where a package that it needs is not installed."""
    try:
        return import_module(VERBS[verb])
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in ("pat", "study"):
            raise
        fail(f"study {verb} needs {error.name}: pip install 'pruning-aware-tuning[workflow]'")


@cache
def command(verb: str) -> Callable[..., Any]:
    """Return a verb as it is called, built once in a process."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(cls=Verb)(_loaded(verb).main)
    return typer.main.get_command(app)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a user's mistake, or a file that the system refuses, is one message and status 1, never a traceback."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("--help", "-h"):
        typer.echo(overview())
        sys.exit(0 if given else 2)
    verb, *rest = given
    if verb == "--version":
        typer.echo(f"study {__version__}")
        sys.exit(0)
    if verb not in VERBS:
        fail(f"study {verb}: no such verb{nearest(verb, VERBS)}")
    called = command(verb)
    try:
        called(rest, prog_name=f"study {verb}")
    except UserError as error:
        fail(str(error))
    except OSError as error:
        if not is_refusal(error, rest):
            raise
        fail(str(refusal(error)))
