"""The command line of the scripts that prepare a set from one of its sources: the same options, the same end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from script_errors import run_reporting_errors


def command_line(prepare: Callable[[str, int, Path], str]) -> Callable[..., None]:
    """Return what a script's command line runs: `prepare(source, seed, out)`, described by its docstring."""

    def main(
        source: Annotated[str, typer.Option(help="The set's source block of the experiment file, as JSON.")],
        out: Annotated[Path, typer.Option(help="The JSONL to write.")],
        seed: Annotated[int, typer.Option(help="Draws the fraction of a hub data set.")] = 0,
    ) -> None:
        run_reporting_errors(lambda: prepare(source, seed, out))

    main.__doc__ = prepare.__doc__
    return main
