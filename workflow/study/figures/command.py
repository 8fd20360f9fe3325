"""`study figure NAME`: one of the figures, from the files that it is a function of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from pat.errors import UserError
from pat.io.places import READS, WRITES
from pat.settings.mistakes import nearest, shown
from study.commands.errors import run_reporting_errors
from study.commands.places import Pictures, guarded
from study.experiment.table_settings import AccuracyTable
from study.figures.drawings import DRAWINGS, draw
from study.results.options import CellsOption, ListOption, MoreArgument, listed


def _pictures(values: Mapping[str, Any]) -> Pictures:
    if values["name"] not in DRAWINGS:
        raise UserError(f"{shown(values['name'])} is no figure{nearest(values['name'], DRAWINGS)}")
    return Pictures(values["name"])


@guarded(_pictures)
def main(
    name: Annotated[str, typer.Argument(help=f"The figure: {', '.join(DRAWINGS)}.")],
    out: Annotated[Path, typer.Option(help="Folder for the figure as .png and .pdf and its data as .csv; other files in it stay."), WRITES],
    benchmark: Annotated[
        list[Path] | None, typer.Option(help="A JSON of `pat benchmark inference` or `export`; may be repeated."), READS
    ] = None,
    tuning: Annotated[Path | None, typer.Option(help="The run's adapter/tuning.json, for its health."), READS] = None,
    title: Annotated[str, typer.Option(help="What the figure of a run's health calls the run.")] = "",
    accuracy: Annotated[
        AccuracyTable | None,
        typer.Option(help="The table of the paper beside ours: table1 (zero-shot, the default) or table3 (tuned on the tasks)."),
    ] = None,
    cells: CellsOption = None,
    cells_from: ListOption = None,
    more: MoreArgument = None,
) -> None:
    """Draw one of the figures."""
    named = title or (tuning.parent.as_posix() if tuning else "")

    def action() -> str:
        given = {"cells": listed(cells, more, cells_from), "benchmark": benchmark or [], "tuning": tuning, "title": named}
        return draw(name, {**given, "accuracy": accuracy}, out)

    run_reporting_errors(action)
