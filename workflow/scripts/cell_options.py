"""The command-line options by which the report's scripts are told their cells. One definition for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from pat.errors import UserError

CellsOption = Annotated[list[Path] | None, typer.Option("--cells", help="A cell.json; give the option once a file.")]
MoreArgument = Annotated[list[Path] | None, typer.Argument(metavar="[CELL.JSON]...", help="Further cell.json files.")]
ListOption = Annotated[Path | None, typer.Option("--cells-from", help="A text file that names one cell.json a line.")]


def listed(cells: Sequence[Path] | None, more: Sequence[Path] | None, cells_from: Path | None) -> list[Path]:
    """Return all paths named on the command line and in the list file. Raises UserError where that cannot be read."""
    paths = [*(cells or ()), *(more or ())]
    if cells_from is None:
        return paths
    try:
        lines = cells_from.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--cells-from {cells_from}: cannot be read ({error})") from None
    return [*paths, *(Path(line.strip()) for line in lines if line.strip())]
