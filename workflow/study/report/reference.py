"""Keeps an experiment as a reference: its tables, its cells, what made them and how long that took, and shows its tables in a document.

It is finished, or by request what is there of it is kept, in tables that say so.

Writes `results/reference/<name>/` and the block of a document that is marked with that name. Nothing is typed by hand.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from PIL import Image

from pat.errors import UserError
from pat.io.artefacts import MANIFEST, new_folder, read_json, read_record, write_json, write_text
from pat.io.marks import SEAL
from pat.io.places import READS, WRITES, Force
from study.commands.errors import run_reporting_errors
from study.commands.places import REFERENCE, guarded
from study.experiment.extends import read_resolved
from study.plan.paths import before_the_cut
from study.report.blocks import SHOWN_TABLES, check_block, counted, marks, readme_block, write_block
from study.report.committed import is_as_committed
from study.report.kept_run import TIMES, Finished, Unfinished
from study.results.archive import ARCHIVE, pack
from study.results.base_records import records_of_bases
from study.results.kept import kept_as
from study.results.options import origins_of
from study.results.times import whole
from study.tables.layouts import csv_text, markdown
from study.tables.times import times_table

DOCUMENTS = ("README.md", "docs/*.md")
REMADE_TABLES = ("cells.csv", "*.tex", "*.html")
"""Tables that say nothing beyond the records and the tables beside them: `study unpack` and `study tables` make them again."""
COLOURS = 64
FROM_EACH_CHECKPOINT = ("adapter/tuning.json", "merged/merge.json", "merged/prune.json", "pruned/prune.json")
OF_MODELS = ("models/*/pretraining.json", "models/*/import.json")


def keep(run: Finished, out: Path, machine: str, experiment: Path, shown: Sequence[str] = SHOWN_TABLES, *, force: bool = False) -> None:
    """Copy tables, figures, benchmarks, the records behind them and the experiment's file into `out`, with a record of what made them.

    The records are in one compressed file, of which `study unpack` makes the files again. The runs' health plots stay behind: many
    pictures, and `tuning.json` holds their data. How long the jobs took is kept as `times.csv` and `times.md` among the tables.

    `shown` are the tables that the README is to show, those of them that there are.
    Raises UserError where cells come from changed code or from code of no known commit.
    """
    whole_experiment, jobs, unmeasured = read_resolved(experiment), run.jobs(), run.unmeasured()
    record = {
        "experiment": experiment.as_posix(), "machine": machine, "cells": len(run.cells), "shown": list(shown), **_common_origin(run.cells),
        **({"of_cells": run.of_cells} if run.of_cells is not None else {}),
        **({"times": whole(jobs).record()} if jobs else {}), **({"unmeasured": unmeasured} if jobs and unmeasured else {}),
    }  # fmt: skip
    with new_folder(out, REFERENCE, force=force) as folder:
        with run.tables() as tables:
            shutil.copytree(tables, folder / "tables", ignore=shutil.ignore_patterns(MANIFEST, SEAL, *REMADE_TABLES))
        if jobs:
            layout, frame = times_table(jobs, out.name, machine, unmeasured)
            write_text(folder / "tables" / "times.md", markdown(layout))
            write_text(folder / TIMES, csv_text(frame, digits=6))
        _check_shown(folder / "tables", shown)
        asked = whole_experiment.get("figures")
        with run.figures() as figures:
            for figure in figures:
                if asked is not None and figure.stem not in asked:
                    continue  # what an earlier form of the experiment has left is of other cells
                copy_in_few_colours(figure, folder / "figures" / figure.name)
        pack(_records(run), folder / ARCHIVE)
        for measured in run.benchmarks():
            _copy(measured, folder / measured.relative_to(run.results))
        write_text(folder / "experiment.yaml", yaml.safe_dump(whole_experiment, sort_keys=False, allow_unicode=True))
        write_json(folder / "origin.json", record)


def _check_shown(tables: Path, shown: Sequence[str]) -> None:
    """Raise UserError on a name that is of no table; of those that are shown by default some are not made of every experiment."""
    there = sorted(path.name for path in tables.glob("*.md"))
    if unknown := [name for name in shown if name not in there and name not in SHOWN_TABLES]:
        raise UserError(f"--show: {', '.join(unknown)}: no such table; the tables are {', '.join(there)}")


def _records(run: Finished) -> dict[str, Path]:
    """Return the records behind the tables by the names that the reference gives them: of the rows and models of the cells alone.

    But what a cell was made from is there also where it is of a row without a cell.
    """
    results, places = run.results, [cell.parent.relative_to(run.results / "evaluation") for cell in run.cells]
    folders = [results / "checkpoints" / each for place in places for each in (place, before_the_cut(place))]
    steps = [folder / name for folder in folders for name in FROM_EACH_CHECKPOINT]
    rows, models = {place.parts[:2] for place in places}, {place.parts[0] for place in places}
    rates = [rate for rate in results.glob("checkpoints/*/*/*/rate.json") if rate.relative_to(results / "checkpoints").parts[:2] in rows]
    bases = [base for pattern in OF_MODELS for base in results.glob(pattern) if base.parent.name in models]
    found = [*run.cells, *run.parts, *(step for step in steps if step.is_file()), *rates, *bases, *_prepared(run)]
    return {kept_as(path.relative_to(results)): path for path in found}


def _prepared(run: Finished) -> set[Path]:
    """Return the records of how the bases of the cells' rows were rotated and refitted: of the settings that the cells name."""
    return {path for cell in run.cells for path in records_of_bases(cell, read_record(cell).get("provenance", {}))}


def _common_origin(cells: Sequence[Path]) -> dict[str, Any]:
    """Return commits, versions and machines of all phases of all cells, which may be several. Raises UserError on changed code."""
    origins = origins_of(cells)
    if any(origin["git_commit"] is None for origin in origins):
        raise UserError("some cells were made by code outside a git checkout; a reference must name its commit: run from a clone")
    if not all(is_as_committed(origin) for origin in origins):
        raise UserError("some cells were made by code with uncommitted changes; a reference must name its commit: commit, then run again")
    versions: dict[str, set[str]] = {}
    for origin in origins:
        for name, version in origin["versions"].items():
            versions.setdefault(name, set()).add(version)
    return {
        "git_commits": sorted({str(origin["git_commit"]) for origin in origins}),
        "versions": {name: ", ".join(sorted(found)) for name, found in sorted(versions.items())},
        "python": sorted({origin["python"] for origin in origins}),
        "devices": sorted({str(origin.get("gpu", origin["device"])) for origin in origins}),
        "platform": ", ".join(sorted({origin["machine"] for origin in origins if "machine" in origin})),
    }


def copy_in_few_colours(source: Path, target: Path) -> None:
    """Copy a PNG with a palette of its colours: a figure has few, and all references lie in every clone."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(source) as picture:
        picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(target, optimize=True)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def update(
    run: Finished,
    out: Path,
    documents: Sequence[Path],
    machine: str,
    experiment: Path,
    shown: Sequence[str] = SHOWN_TABLES,
    *,
    force: bool = False,
) -> Mapping[str, object]:
    """Keep the reference, then bring its block in documents up to date; return the reference's record. Raises UserError as `keep` does."""
    for document in documents:
        check_block(document, out.name)
    keep(run, out, machine, experiment, shown, force=force)
    for document in documents:
        write_block(document, out.name, readme_block(out))
    record: Mapping[str, object] = read_json(out / "origin.json")
    return record


def documents_with(name: str) -> list[Path]:
    """Return those of the folder's documents that have a place for the block of a reference."""
    found = {path.resolve(): path for pattern in DOCUMENTS for path in sorted(Path().glob(pattern)) if path.is_file()}
    begins = marks(name)[0].encode()
    return [path for path in found.values() if begins in path.read_bytes().splitlines()]  # others may be no text, or only speak of it


def run_to_keep(results: Path, experiment: Path, out: Path, *, unfinished: bool, force: bool) -> Finished:
    """Return what is to be kept. Raises UserError where it is not there, or, without `force`, what `out` has would be lost."""
    if not unfinished:
        return Finished(results)
    run = Unfinished(results, experiment)
    if not force:
        run.check_none_lost(out)
    return run


@guarded(REFERENCE)
def main(
    results: Annotated[Path, typer.Option(help="results/<experiment>, finished unless with --unfinished"), READS],
    out: Annotated[Path, typer.Option(help="results/reference/<name>"), WRITES],
    machine: Annotated[str, typer.Option(help="what it ran on, in words")],
    experiment: Annotated[Path, typer.Option(help="the experiment's file"), READS],
    readme: Annotated[
        Path | None, typer.Option(help="the document whose block is brought up to date; left out: README.md and docs/*.md that have it")
    ] = None,
    show: Annotated[str, typer.Option(help="the tables to show; of the default ones those that there are")] = " ".join(SHOWN_TABLES),
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="keep the cells that are there, by their records; the tables say of how many")
    ] = False,
    force: Force = False,
) -> None:
    """Keep an experiment as a reference, and show it in the documents that have a place for it."""

    def action() -> str:
        run = run_to_keep(results, experiment, out, unfinished=unfinished, force=force)
        documents = [readme] if readme is not None else documents_with(out.name)
        record = update(run, out, documents, machine, experiment, show.split(), force=force)
        shown = f"shown in {', '.join(map(str, documents))}" if documents else f"no document has the lines {' and '.join(marks(out.name))}"
        return f"{out}: {counted(record)} kept, {shown}"

    run_reporting_errors(action)
