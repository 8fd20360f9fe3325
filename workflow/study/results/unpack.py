"""Makes the records of a kept reference into files again, as the tables and figures read them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pat.io.places import READS, WRITES, Force
from study.commands.errors import run_reporting_errors
from study.commands.places import Unmarked, guarded
from study.results.archive import ARCHIVE, unpacked, write_all
from study.results.kept import RESULT

CELLS_LIST = "cells.txt"


def unpack_reference(reference: Path, out: Path, *, replace: bool = True) -> str:
    """Write a reference's records into `out` as an experiment's results hold them, and a list of its cells; return what was done."""
    files = unpacked(reference / ARCHIVE, out)
    cells = [path for path in files if path.name == RESULT]
    listed = "".join(f"{path}\n" for path in cells)
    write_all({out / CELLS_LIST: listed.encode(), **files}, replace=replace)
    return f"{out}: {len(files)} records; {out / CELLS_LIST} lists {len(cells)} cells"


@guarded(Unmarked())
def main(
    reference: Annotated[Path, typer.Argument(help="results/reference/<name>"), READS],
    out: Annotated[Path, typer.Option(help="where the files go"), WRITES],
    force: Force = False,
) -> None:
    """Make the records of a kept reference into files again."""
    run_reporting_errors(lambda: unpack_reference(reference, out, replace=force))
