"""Writes the tables of a folder's benchmark records into a document, between the marks `<!-- NAME:start -->` and `<!-- NAME:end -->` of
that folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pat.errors import UserError
from study.commands.errors import run_reporting_errors
from study.report.blocks import write_block
from study.tables.benchmarks import layouts_of, read_record
from study.tables.layouts import markdown


def write(folder: Path, document: Path) -> str:
    """Bring the document's block up to date and return what was done. Raises UserError where the folder has no records."""
    records = [read_record(path) for path in sorted((folder / "benchmark").glob("*.json"))]
    if not records:
        raise UserError(f"{folder / 'benchmark'}: holds no records")
    block = "\n\n".join(markdown(layout).strip() for layout in layouts_of(records))
    write_block(document, folder.name, block)
    return f"{document}: {len(records)} records of {folder}"


def main(
    records: Annotated[Path, typer.Option(help="folder with benchmark/*.json")],
    document: Annotated[Path, typer.Option(help="the document with the marks")],
) -> None:
    """Bring a document's tables of benchmarks up to date."""
    run_reporting_errors(lambda: write(records, document))
