"""`study times`: how long the jobs of an experiment took, as a table to read or to compute with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from study.commands.errors import run_reporting_errors
from study.results.options import behind_tables, origins_of
from study.results.times import read_times
from study.tables.layouts import csv_text, markdown
from study.tables.times import times_table

DIGITS = 6


def devices(results: Path) -> str:
    """Return on which devices the cells of an experiment were made; nothing where it has no tables yet."""
    if not (results / "tables").is_dir():
        return ""
    return ", ".join(sorted({str(origin.get("gpu", origin["device"])) for origin in origins_of(behind_tables(results))}))


def main(
    results: Annotated[Path, typer.Option(help="results/<experiment>, finished or at work.")],
    csv: Annotated[bool, typer.Option("--csv", help="The same as CSV, in seconds.")] = False,
) -> None:
    """Print how long each step of an experiment took, in wall and in processor time."""

    def action() -> str:
        layout, frame = times_table(read_times(results), results.resolve().name, devices(results))
        return (csv_text(frame, DIGITS) if csv else markdown(layout)).strip()

    run_reporting_errors(action)
