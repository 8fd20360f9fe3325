"""`study progress`: how many cells of an experiment are finished, how long the rest may take, and what can be laid out by now."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from pat.errors import UserError
from pat.io.artefacts import write_text
from pat.io.places import READS, WRITES, Force
from study.commands.errors import errors_reported
from study.commands.places import PAGE, TABLES, guarded
from study.experiment.file import load_experiment
from study.experiment.schema import Cell, Experiment
from study.plan.paths import Paths
from study.report.page.command import page
from study.report.page.run import Run
from study.results.cells import read_cells
from study.results.on_record import on_record, result_of
from study.results.standing import Output, Rest, outputs_of, rest_of
from study.results.times import FOLDER as MEASURED
from study.results.times import read_times, whole
from study.tables.layouts import HOLE, Layout, markdown
from study.tables.times import duration
from study.tables.writing import write_tables

AT_A_TIME = 1.05
"""From so many jobs at a time on they are told: below it they came one after another."""


def finished_table(experiment: Experiment, finished: Sequence[Cell]) -> Layout:
    """Return how many cells of each model, row and ratio are finished, of how many."""
    cells = experiment.cells()
    ratios = sorted({cell.ratio for cell in cells})
    rows = []
    for model, row in dict.fromkeys((cell.model, cell.row) for cell in cells):
        counts = []
        for ratio in ratios:
            here = [cell for cell in cells if (cell.model, cell.row, cell.ratio) == (model, row, ratio)]
            counts.append(f"{len([cell for cell in here if cell in finished])} of {len(here)}" if here else HOLE)
        rows.append([model, row, *counts])
    caption = f"{experiment.name}: {len(finished)} of {len(cells)} cells are finished"
    return Layout(caption, ["Model", "Row", *(f"{ratio:g}" for ratio in ratios)], rows, text_columns=2)


def left(rest: Rest, at_a_time: float) -> Iterator[str]:
    """Yield in sentences what is left and how long it may take, with as many jobs at a time as there were so far."""
    if not rest.jobs:
        yield "Nothing is left but tables and figures, if they are not there yet."
        return
    jobs = "1 job is" if rest.jobs == 1 else f"{rest.jobs} jobs are"
    yield f"{jobs} left, tables and figures not counted."
    if rest.known:
        together = f", {duration(rest.wall_s / at_a_time)} with {at_a_time:.1f} at a time as so far" if at_a_time >= AT_A_TIME else ""
        yield (
            f"{rest.known} of them take about {duration(rest.wall_s)} one after another{together}, by the median of finished jobs of the "
            "same rule, model and row, else of the same rule and model."
        )
    if rest.unknown:
        yield f"Of {rest.jobs - rest.known} nothing is known yet: {', '.join(f'{count} {name}' for name, count in rest.unknown.items())}."


def at_a_time(results: Path) -> float:
    """Return how many jobs ran at a time on average while any did; 1 before the first has ended."""
    if not any((results / MEASURED).rglob("*.tsv")):
        return 1.0
    so_far = whole(read_times(results))
    return so_far.wall_s / so_far.busy_s if so_far.busy_s else 1.0


def check_apart_from_finished(tables: Path, results: Path) -> None:
    """Raise UserError where unfinished tables would lie where the finished ones do."""
    place = (results / "tables").resolve()
    if place == tables.resolve() or place in tables.resolve().parents:
        raise UserError(f"--tables {tables}: is where the finished tables lie; name another folder")


def finished_cells(experiment: Experiment, outputs: Sequence[Output]) -> list[Cell]:
    """Return the cells whose result is there and stays."""
    done = {output.path for output in outputs if not output.pending}
    return [cell for cell in experiment.cells() if result_of(cell) in done]


def by_snakemake(experiment: Experiment, config: Path, results: Path) -> tuple[list[Cell], list[str]]:
    """Return the cells that are finished and stay so, and in sentences what is left."""
    outputs = outputs_of(config, results)
    return finished_cells(experiment, outputs), list(left(rest_of(outputs, results), at_a_time(results)))


def by_records(experiment: Experiment, config: Path, results: Path) -> tuple[list[Cell], list[str]]:
    """Return the cells whose records are there, and in a sentence that a run would not count them all."""
    return [each.cell for each in on_record(experiment, results, str(config))], [
        "Counted by their records: where weights or data are not here, a run in this folder would make these cells again."
    ]


def lay_out(experiment: Experiment, paths: Sequence[Path], tables: Path | None, report: Path | None, *, force: bool) -> Iterator[str]:
    """Write tables and report of the finished cells where they are asked for; yield a line for each. Raises UserError where none is."""
    if not paths:
        raise UserError(f"{experiment.name}: no cell is finished yet, so there is nothing to lay out")
    count, results = len(experiment.cells()), Path(Paths(experiment.name).results)
    if tables is not None:
        names = write_tables(paths, tables, experiment.tables, of_cells=count, force=force)
        yield f"{tables}: {', '.join(names)}"
    if report is not None:
        run = Run(results, read_cells(paths), results / "checkpoints", of_cells=count, asked=experiment.tables)
        write_text(report, page(run, called=results.as_posix()))
        yield f"{report}: {run.counted}"


@guarded({"tables": TABLES, "report": PAGE})
def main(
    config: Annotated[Path, typer.Argument(help="Experiment file."), READS],
    tables: Annotated[Path | None, typer.Option(help="Folder for tables of the finished cells; replaced as a whole."), WRITES] = None,
    report: Annotated[Path | None, typer.Option(help="Report of the finished cells, one file of HTML."), WRITES] = None,
    records: Annotated[
        bool, typer.Option("--records", help="Count cells by their records, as where weights and data stayed on another machine.")
    ] = False,
    force: Force = False,
) -> None:
    """Say how many cells of an experiment are finished and how long the rest may take; lay out the finished ones."""
    with errors_reported():
        experiment = load_experiment(config, str(config))
        results = Path(Paths(experiment.name).results)
        if tables is not None:
            check_apart_from_finished(tables, results)
        finished, rest = (by_records if records else by_snakemake)(experiment, config, results)
        lines = [markdown(finished_table(experiment, finished)), *rest]
        if tables is not None or report is not None:
            lines += ["", *lay_out(experiment, [results / result_of(cell) for cell in finished], tables, report, force=force)]
        typer.echo("\n".join(lines))
