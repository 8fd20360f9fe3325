"""Keeps a finished experiment as a reference: its tables, its cells, what made them and how long that took, and the README's table from it.

Writes `results/reference/<name>/` and the block of README.md that is marked with that name. Nothing is typed by hand.
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
from pat.io.artefacts import MANIFEST, new_folder, read_json, write_json, write_text
from pat.io.marks import SEAL
from pat.io.places import READS, WRITES, Force
from study.commands.errors import run_reporting_errors
from study.commands.places import REFERENCE, guarded
from study.experiment.extends import read_resolved
from study.plan.paths import before_the_cut
from study.report.blocks import SHOWN_TABLES, readme_block, with_block
from study.report.committed import is_as_committed
from study.results.archive import ARCHIVE, pack
from study.results.kept import kept_as
from study.results.options import behind_tables, origins_of
from study.results.times import FOLDER as MEASURED
from study.results.times import read_times, whole
from study.tables.layouts import csv_text, markdown
from study.tables.times import times_table

REMADE_TABLES = ("cells.csv", "*.tex", "*.html")
"""Tables that say nothing beyond the records and the tables beside them: `study unpack` and `study tables` make them again."""
COLOURS = 64
FROM_EACH_CHECKPOINT = ("adapter/tuning.json", "merged/merge.json", "merged/prune.json", "pruned/prune.json")


def keep(results: Path, out: Path, machine: str, experiment: Path, shown: Sequence[str] = SHOWN_TABLES, *, force: bool = False) -> None:
    """Copy tables, figures, benchmarks, the records behind them and the experiment's file into `out`, with a record of what made them.

    The records are in one compressed file, of which `study unpack` makes the files again. The runs' health plots stay behind: many
    pictures, and `tuning.json` holds their data. How long the jobs took is kept as `times.csv` and `times.md` among the tables.

    `shown` are the tables that the README is to show, those of them that there are.
    Raises UserError where the experiment is not finished, or its cells come from changed code or from code of no known commit.
    """
    cells = behind_tables(results)
    whole_experiment = read_resolved(experiment)
    jobs = read_times(results) if (results / MEASURED).is_dir() else []
    record = {
        "experiment": experiment.as_posix(), "machine": machine, "cells": len(cells), "shown": list(shown), **_common_origin(cells),
        **({"times": whole(jobs).record()} if jobs else {}),
    }  # fmt: skip
    with new_folder(out, REFERENCE, force=force) as folder:
        shutil.copytree(results / "tables", folder / "tables", ignore=shutil.ignore_patterns(MANIFEST, SEAL, *REMADE_TABLES))
        if jobs:
            layout, frame = times_table(jobs, out.name, machine)
            write_text(folder / "tables" / "times.md", markdown(layout))
            write_text(folder / "tables" / "times.csv", csv_text(frame, digits=6))
        asked = whole_experiment.get("figures")
        for figure in sorted((results / "figures").glob("*.png")):
            if asked is not None and figure.stem not in asked:
                continue  # what an earlier form of the experiment has left is of other cells
            copy_in_few_colours(figure, folder / "figures" / figure.relative_to(results / "figures"))
        pack(_records(results, cells), folder / ARCHIVE)
        for measured in sorted(results.glob("benchmark/*/*.json")):
            _copy(measured, folder / measured.relative_to(results))
        write_text(folder / "experiment.yaml", yaml.safe_dump(whole_experiment, sort_keys=False, allow_unicode=True))
        write_json(folder / "origin.json", record)


def _records(results: Path, cells: Sequence[Path]) -> dict[str, Path]:
    """Return the records behind the tables by the names that the reference gives them: of the rows and models of the cells alone."""
    places = [cell.parent.relative_to(results / "evaluation") for cell in cells]
    folders = [results / "checkpoints" / each for place in places for each in (place, before_the_cut(place))]
    steps = [folder / name for folder in folders for name in FROM_EACH_CHECKPOINT]
    rows, models = {place.parts[:2] for place in places}, {place.parts[0] for place in places}
    rates = [rate for rate in results.glob("checkpoints/*/*/*/rate.json") if rate.relative_to(results / "checkpoints").parts[:2] in rows]
    bases = [base for base in results.glob("models/*/pretraining.json") if base.parent.name in models]
    found = [*cells, *(step for step in steps if step.is_file()), *rates, *bases]
    return {kept_as(path.relative_to(results)): path for path in found}


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
    results: Path,
    out: Path,
    readme: Path,
    machine: str,
    experiment: Path,
    shown: Sequence[str] = SHOWN_TABLES,
    *,
    force: bool = False,
) -> Mapping[str, object]:
    """Keep the reference, then bring the README's block up to date; return the reference's record."""
    keep(results, out, machine, experiment, shown, force=force)
    write_text(readme, with_block(readme.read_text(encoding="utf-8"), out.name, readme_block(out)))
    record: Mapping[str, object] = read_json(out / "origin.json")
    return record


@guarded(REFERENCE)
def main(
    results: Annotated[Path, typer.Option(help="results/<experiment>, finished"), READS],
    out: Annotated[Path, typer.Option(help="results/reference/<name>"), WRITES],
    machine: Annotated[str, typer.Option(help="what it ran on, in words")],
    experiment: Annotated[Path, typer.Option(help="the experiment's file"), READS],
    readme: Annotated[Path, typer.Option(help="the README whose block is brought up to date")] = Path("README.md"),
    show: Annotated[str, typer.Option(help="the tables that the README shows, where there are such")] = " ".join(SHOWN_TABLES),
    force: Force = False,
) -> None:
    """Keep a finished experiment as a reference and show it in the README."""
    run_reporting_errors(
        lambda: f"{out}: {update(results, out, readme, machine, experiment, show.split(), force=force)['cells']} cells kept"
    )
