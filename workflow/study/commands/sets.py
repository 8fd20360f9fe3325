"""The command line of the verbs that prepare a set from one of its sources: the same options, the same end, one reader of the block."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated

import typer

from pat.errors import UserError
from pat.io.artefacts import parse_json
from pat.io.places import READS, WRITES, Force, Place, check_apart
from pat.settings.fields import Settings
from pat.settings.limits import LARGEST_SEED
from pat.settings.mistakes import load, shown
from study.commands.errors import run_reporting_errors
from study.commands.places import Unmarked, guarded


def command_line(prepare: Callable[..., str]) -> Callable[..., None]:
    """Return what a verb's command line runs: `prepare(source, seed, out, replace=…)`, described by its docstring."""

    @guarded(Unmarked())
    def main(
        source: Annotated[str, typer.Option(help="The set's source block of the experiment file, as JSON.")],
        out: Annotated[Path, typer.Option(help="The JSONL to write."), WRITES],
        seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Draws the fraction of a hub data set.")] = 0,
        force: Force = False,
    ) -> None:
        def action() -> str:
            check_source_stays(source, out)
            return prepare(source, seed, out, replace=force)

        run_reporting_errors(action)

    main.__doc__ = prepare.__doc__
    return main


def check_source_stays(source: str, out: Path) -> None:
    """Raise UserError where the set would be written over a file that its source block names."""
    read = [Place("--source", path, READS) for path in _paths_in(parse_json(source, "--source"))]
    check_apart([Place("--out", out, WRITES), *read])


def _paths_in(block: object) -> Iterator[Path]:
    """Yield the files and folders that a source block names, those of the sources that it is made of too."""
    if not isinstance(block, Mapping):
        return
    for name, value in block.items():
        if name == "path" and isinstance(value, str) and value:
            yield Path(value)
        yield from _paths_in(value)


def parse_source(text: str, kinds: Mapping[str, type[Settings]]) -> Settings:
    """Return the checked source block. Raises UserError where its kind is not among `kinds` or a field is wrong."""
    block = parse_json(text, "--source")
    kind = block.get("source") if isinstance(block, dict) else None
    if not isinstance(kind, str) or kind not in kinds:
        raise UserError(f"--source: source is {shown(kind)}; allowed: {', '.join(sorted(kinds))}")
    return load(kinds[kind], json.dumps(block))
