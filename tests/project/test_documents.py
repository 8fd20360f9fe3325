"""The commands that the documents show: each verb, module, target and option is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Any

import pytest
import typer

from pat import cli
from pat.benchmark.settings import (
    EvaluationBenchmark,
    ExportBenchmark,
    InferenceBenchmark,
    MergeBenchmark,
    PruneBenchmark,
    TuningBenchmark,
)
from pat.settings.fields import Settings
from pat.settings.mistakes import load
from study.cli import VERBS
from tests.kit.project import ROOT

DOCUMENTS = sorted(
    path for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "config" / "README.md") if path.name not in ("CHANGELOG.md",)
)
CONTINUED = re.compile(r"\\\n\s*|\n {8,}(?=--|\"|['-])")
"""A command that goes on in the next line: after a backslash, or further in."""
OPTION = re.compile(r"(?<=\s)--[a-z][a-z-]*")
TARGETS = re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def commands(document: Path) -> Iterator[str]:
    """Yield the commands of a document's blocks of code, and those inside its lines."""
    text = CONTINUED.sub(" ", document.read_text(encoding="utf-8"))
    for line in re.findall(r"^    (\S.*)$", text, re.MULTILINE):
        yield re.sub(r"'[^']*'|\"[^\"]*\"", "TEXT", line.split("    #")[0])
    for code in re.findall(r"`([^`\n]+)`", text):
        yield re.sub(r"'[^']*'", "TEXT", code)


FOUND = [(document, command) for document in DOCUMENTS for command in commands(document)]


def shown(begins: str) -> list[tuple[str, list[str]]]:
    """Return the documents and words of the commands that begin so, those in which nothing else follows left out."""
    return [(document.name, command.split()) for document, command in FOUND if re.match(rf"{begins} [a-z]", command)]


def called(words: list[str]) -> Any:
    """Return the command of pat that the words call. Raises KeyError where there is none."""
    found: Any = typer.main.get_command(cli.app)
    for word in words[1:]:
        if not hasattr(found, "commands") or not word[0].isalpha():
            break
        found = found.commands[word]
    return found


def options_of(command: Any) -> set[str]:
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}


def test_the_verbs_of_pat_and_their_options_are_there() -> None:
    seen = shown("pat")
    assert len(seen) > 30
    for document, words in seen:
        if words[1] in VERBS:  # handed over to the study
            continue
        missing = set(OPTION.findall(" ".join(words))) - options_of(called(words))
        assert not missing, f"{document}: {' '.join(words)}: {missing}"


def test_the_verbs_of_the_study_and_their_options_are_there() -> None:
    seen = shown("study")
    assert len(seen) > 5
    for document, words in seen:
        app = typer.Typer()
        app.command()(import_module(VERBS[words[1]]).main)
        missing = set(OPTION.findall(" ".join(words))) - options_of(typer.main.get_command(app))
        assert not missing, f"{document}: {' '.join(words)}: {missing}"


def test_the_modules_that_are_called_are_there() -> None:
    named = {name for _, command in FOUND for name in re.findall(r"python -m ((?:study|pat|tools)[\w.]*)", command)}
    assert named
    assert [name for name in sorted(named) if find_spec(name) is None] == []


@pytest.mark.parametrize("target", sorted({words[1] for _, words in shown("make")}))
def test_the_targets_of_make_are_there(target: str) -> None:
    assert target in TARGETS


BENCHMARKS: dict[str, type[Settings]] = {
    "inference": InferenceBenchmark, "tune": TuningBenchmark, "evaluation": EvaluationBenchmark, "prune": PruneBenchmark,
    "merge": MergeBenchmark, "export": ExportBenchmark,
}  # fmt: skip
GIVEN = re.compile(r"""pat benchmark (\w+) [^\n]*?--settings (?:'([^'\n]*)'|"((?:\\"|[^"\n])*)")""")
KEPT = re.compile(r"^    (\w+)='([^'\n]*)'$", re.MULTILINE)
"""A variable of the shell that later commands of the page take."""


def test_the_settings_of_benchmarks_are_valid() -> None:
    seen: list[Settings] = []
    for document in DOCUMENTS:
        text = CONTINUED.sub(" ", document.read_text(encoding="utf-8"))
        values = dict(KEPT.findall(text))
        for kind, plain, quoted in GIVEN.findall(text):
            seen.append(load(BENCHMARKS[kind], plain or Template(quoted.replace('\\"', '"')).substitute(values)))
    assert len(seen) > 15
