"""How the report's commands get their cells: by command-line options, the same for all of them, or from tables that are there."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pat.errors import UserError
from pat.io.artefacts import read_json
from pat.io.places import READS
from pat.settings.mistakes import shown
from study.results.kept import check_results

CellsOption = Annotated[list[Path] | None, typer.Option("--cells", help="A cell.json; give the option once per file."), READS]
MoreArgument = Annotated[list[Path] | None, typer.Argument(metavar="[CELL.JSON]...", help="Further cell.json files."), READS]
ListOption = Annotated[Path | None, typer.Option("--cells-from", help="A text file that names one cell.json per line."), READS]

TABLE_OF_CELLS = Path("tables", "cells.csv")
"""Below an experiment's results; it names the cells of the tables."""
CELL_STEPS = len(Path("evaluation/model/row/ratio/seed/cell.json").parts)


def listed(cells: Sequence[Path] | None, more: Sequence[Path] | None, cells_from: Path | None) -> list[Path]:
    """Return all paths named on the command line and in the list file. Raises UserError where that cannot be read."""
    paths = [*(cells or ()), *(more or ())]
    if cells_from is None:
        return paths
    try:
        named = [line.strip() for line in cells_from.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--cells-from {cells_from}: cannot be read ({error})") from None
    if not named:
        raise UserError(f"--cells-from {cells_from}: names no file; one cell.json per line is needed")
    for line in named:
        if not os.path.isfile(line):  # noqa: PTH113 - a line too long to be a path is no file here; pathlib would raise
            raise UserError(f"--cells-from {cells_from}: names {shown(line)}, which is no file")
    return [*paths, *map(Path, named)]


def behind_tables(results: Path) -> list[Path]:
    """Return the cell.json files that an experiment's tables were made from, as tables/cells.csv names them.

    What else lies in the folder stays out, such as cells of an earlier grid. Raises UserError where there are no tables.
    """
    check_results(results)
    table = results / TABLE_OF_CELLS
    if not table.is_file():
        raise UserError(f"--results {results}: holds no {TABLE_OF_CELLS}; run the experiment first")
    try:
        with table.open(encoding="utf-8", newline="") as stream:
            named = dict.fromkeys(Path(line["json"]) for line in csv.DictReader(stream))
    except (KeyError, TypeError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{table}: is not the table of cells that `study tables` writes ({error!r}); make the tables again") from None
    if not named or any(".." in path.parts for path in named):
        raise UserError(f"{table}: names no cell, or one outside the results; make the tables again")
    # A path starts where the tables were written from; where a cell lies below the results is in its last six steps.
    return sorted(results.joinpath(*path.parts[-CELL_STEPS:]) for path in named)


def origins_of(cells: Sequence[Path]) -> list[dict[str, Any]]:
    """Return the provenance of every phase of these cells."""
    return [phase for cell in cells for phase in read_json(cell)["provenance"].values() if phase]
