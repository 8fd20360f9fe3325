"""Writes the table of `pat benchmark prune` and `pat benchmark merge` records into a document, between the marks `<!-- NAME:start -->`
and `<!-- NAME:end -->` of the records' folder. No number is typed by hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer
from pydantic import BaseModel, ConfigDict, ValidationError

from layouts import Layout, markdown
from pat.artefacts import read_json, write_text
from pat.errors import UserError
from reference import with_block
from script_errors import run_reporting_errors

GIB = 2**30


class _Machine(BaseModel):
    name: str
    cores: int


class _Provenance(BaseModel):
    git_commit: str
    versions: dict[str, str]


class Record(BaseModel):
    """What the table shows of one record; `file` is its name, which names the shape."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    file: str
    kind: Literal["prune", "merge"]
    pruner: str | None = None
    wall_s: float
    copy_bytes: int
    peak_host_of_copy: float
    peak_gpu_bytes: int | None
    share_removed: float
    machine: _Machine
    provenance: _Provenance


def read_record(path: Path) -> Record:
    """Return a record. Raises UserError where the file is none."""
    try:
        return Record.model_validate({"file": path.stem, **read_json(path)})
    except (ValidationError, TypeError) as error:
        raise UserError(f"{path}: is not a record of `pat benchmark prune` or `pat benchmark merge` ({error})") from None


def layout(records: Sequence[Record]) -> Layout:
    """Return the table: a line a record."""
    header = ["What", "Shape", "Removed", "Seconds", "Peak memory, copies of the model", "Peak on the GPU, GiB"]
    rows = [
        [
            "merge" if it.kind == "merge" else f"prune: {it.pruner}",
            it.file.removesuffix(f"-{it.pruner or it.kind}"),
            f"{it.share_removed:.1%}",
            f"{it.wall_s:.0f}",
            f"{it.peak_host_of_copy:.2f}",
            "" if it.peak_gpu_bytes is None else f"{it.peak_gpu_bytes / GIB:.1f}",
        ]
        for it in records
    ]
    made_by = sorted({f"{it.machine.name}, {it.machine.cores} CPU cores" for it in records})
    commits = sorted({it.provenance.git_commit[:10] for it in records})
    torch = sorted({it.provenance.versions["torch"] for it in records})
    caption = f"Random weights. {'; '.join(made_by)}; torch {', '.join(torch)}; commit {', '.join(commits)}."
    return Layout(caption, header, rows, text_columns=2)


def write(folder: Path, document: Path) -> str:
    """Bring the document's block up to date and return what was done. Raises UserError where the folder has no records."""
    records = [read_record(path) for path in sorted((folder / "benchmark").glob("*.json"))]
    if not records:
        raise UserError(f"{folder / 'benchmark'}: holds no records")
    text = document.read_text(encoding="utf-8")
    write_text(document, with_block(text, folder.name, markdown(layout(records)).strip(), str(document)))
    return f"{document}: {len(records)} records of {folder}"


def main(
    records: Annotated[Path, typer.Option(help="folder with benchmark/*.json")],
    document: Annotated[Path, typer.Option(help="the document with the marks")],
) -> None:
    """Bring a document's table of benchmarks up to date."""
    run_reporting_errors(lambda: write(records, document))


if __name__ == "__main__":
    typer.run(main)
