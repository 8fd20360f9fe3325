"""Makes the records of a kept reference into files again, as the tables and figures read them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pat.io.artefacts import check_content, check_free, write_text
from pat.io.places import READS, WRITES, Force
from study.commands.errors import run_reporting_errors
from study.commands.places import Unmarked, guarded
from study.results.archive import ARCHIVE, packed, unpack
from study.results.kept import RESULT, place_of

CELLS_LIST = "cells.txt"


def unpack_reference(reference: Path, out: Path, *, replace: bool = True) -> str:
    """Write a reference's records into `out` as an experiment's results hold them, and a list of its cells; return what was done."""
    places = [out / place_of(name) for name, _ in packed(reference / ARCHIVE)]
    cells = [path for path in places if path.name == RESULT]
    listed = "".join(f"{path}\n" for path in cells)
    check_free(out / CELLS_LIST)
    if not replace:
        check_content(out / CELLS_LIST, listed.encode())
    files = unpack(reference / ARCHIVE, out, replace=replace)
    write_text(out / CELLS_LIST, listed, replace=replace)
    return f"{out}: {len(files)} records; {out / CELLS_LIST} lists {len(cells)} cells"


@guarded(Unmarked())
def main(
    reference: Annotated[Path, typer.Argument(help="results/reference/<name>"), READS],
    out: Annotated[Path, typer.Option(help="where the files go"), WRITES],
    force: Force = False,
) -> None:
    """Make the records of a kept reference into files again."""
    run_reporting_errors(lambda: unpack_reference(reference, out, replace=force))
