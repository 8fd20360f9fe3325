"""The command line of the scripts that prepare a set from one of its sources: the same options, the same end, one reader of the block."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import typer

from pat.errors import UserError
from pat.io.artefacts import parse_json
from pat.io.places import WRITES, Force
from pat.settings.fields import Settings
from pat.settings.mistakes import load, shown
from study.commands.errors import run_reporting_errors
from study.commands.places import Unmarked, guarded


def command_line(prepare: Callable[..., str]) -> Callable[..., None]:
    """Return what a script's command line runs: `prepare(source, seed, out, replace=…)`, described by its docstring."""

    @guarded(Unmarked())
    def main(
        source: Annotated[str, typer.Option(help="The set's source block of the experiment file, as JSON.")],
        out: Annotated[Path, typer.Option(help="The JSONL to write."), WRITES],
        seed: Annotated[int, typer.Option(help="Draws the fraction of a hub data set.")] = 0,
        force: Force = False,
    ) -> None:
        run_reporting_errors(lambda: prepare(source, seed, out, replace=force))

    main.__doc__ = prepare.__doc__
    return main


def parse_source(text: str, kinds: Mapping[str, type[Settings]]) -> Settings:
    """Return the checked source block. Raises UserError where its kind is not among `kinds` or a field is wrong."""
    block = parse_json(text, "--source")
    kind = block.get("source") if isinstance(block, dict) else None
    if not isinstance(kind, str) or kind not in kinds:
        raise UserError(f"--source: source is {shown(kind)}; allowed: {', '.join(sorted(kinds))}")
    return load(kinds[kind], json.dumps(block))
