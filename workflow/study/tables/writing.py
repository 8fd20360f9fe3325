"""Writes every table of an experiment as CSV, Markdown, LaTeX and HTML.

A function of the cells' JSONs, of the records of their bases in the same results, and of the paper's printed numbers alone.

Same JSONs, same bytes, in whatever order they are named; nothing here measures, and no table holds a date.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from pat.io.artefacts import new_folder, write_text
from pat.io.places import READS, WRITES, Force
from pat.settings.mistakes import load
from study.commands.errors import run_reporting_errors
from study.commands.places import TABLES, guarded
from study.experiment.table_settings import TableSettings
from study.results.base_records import read_bases
from study.results.cells import Cell, metrics_of, models_of, read_cells
from study.results.grid import Grid, texts_of
from study.results.options import CellsOption, ListOption, MoreArgument, listed
from study.results.published import Printed, PrintedAblation
from study.results.quantised import quantised_models, quantised_notes
from study.results.unfinished import unfinished
from study.tables.ablation import ablation
from study.tables.accuracy import accuracy_table, per_task
from study.tables.bases import fits, ridges, rotations
from study.tables.comparison import comparisons
from study.tables.harness import of_harness
from study.tables.layouts import Layout, csv_text, latex, markdown
from study.tables.masks import mask_notes, trained_masks
from study.tables.origins import COMMAND, FOUND, health, provenance
from study.tables.page import table_page
from study.tables.perplexity import perplexity_comparisons
from study.tables.rates import rate_notes, searched_rates
from study.tables.shares import shortfall_notes
from study.tables.sizes import perplexities, sizes, tidy

DEFAULTS = TableSettings()


def write_tables(
    paths: Sequence[Path], out: Path, settings: TableSettings = DEFAULTS, *, of_cells: int | None = None, force: bool = False
) -> list[str]:
    """Fill the folder `out` (replaced as a whole) with the tables of the cells in `paths`; returns the tables' names.

    `table1` (`table3`), `ablation_<name>` and `per_task_<model>` are scored by the headline metric, the paper's where it was run; the same
    tables of another metric carry its name. `rotations`, `fits` and `ridges` are of the cells' bases, where their records lie in the same
    results.
    Where the experiment has more cells, `of_cells`, the caption of every table says so.
    Raises UserError for files that are not cells' results or do not belong together, and where `out` holds something else than tables,
    unless with `force`.
    """
    cells = read_cells(paths)
    tables = tables_of(cells, settings)
    mark = partial(_marked, made=len(cells), of_cells=of_cells)
    with new_folder(out, TABLES, force=force) as folder:
        write_text(folder / "cells.csv", csv_text(tidy(cells)))
        for name, (layout, frame) in tables.items():
            write_text(folder / f"{name}.csv", csv_text(frame, digits=6))
            write_text(folder / f"{name}.md", markdown(mark(layout)))
            write_text(folder / f"{name}.tex", latex(mark(layout)))
            write_text(folder / f"{name}.html", table_page(mark(layout), name))
        write_text(folder / "provenance.html", table_page(mark(provenance(cells)), "provenance", [COMMAND]))
        if (tunings := health(cells)) is not None:
            write_text(folder / "health.html", table_page(mark(tunings), "health", [FOUND]))
    return sorted([*tables, "cells"])


def _marked(layout: Layout, made: int, of_cells: int | None) -> Layout:
    """Return a table that says what it is of, where that is not all cells of its experiment."""
    mark = unfinished(made, of_cells)
    return replace(layout, caption=f"{mark}. {layout.caption}") if mark else layout


def tables_of(cells: Sequence[Cell], settings: TableSettings = DEFAULTS) -> dict[str, tuple[Layout, pd.DataFrame]]:
    """Return every table of the cells by its name, as it is printed and as data."""
    metrics = metrics_of(cells)
    grids = {metric: Grid(cells, metric) for metric in metrics}
    first = grids[metrics[0]] if metrics else Grid(cells, "")
    tables: dict[str, tuple[Layout, pd.DataFrame]] = {"sizes": sizes(first)}
    for metric, grid in grids.items():
        suffix = "" if metric == metrics[0] else f"_{metric}"
        tables[f"{settings.accuracy}{suffix}"] = accuracy_table(grid, Printed(settings.accuracy))
        for name, factors in settings.ablations.items():
            tables[f"ablation_{name}{suffix}"] = ablation(grid, name, factors, PrintedAblation(settings.accuracy))
        tables |= {f"per_task_{model}{suffix}": per_task(grid, model) for model in models_of(cells)}
        if (compared := comparisons(grid, settings.reference)) is not None:
            tables[f"comparisons{suffix}"] = compared
    if (masks := trained_masks(first)) is not None:
        tables["masks"] = masks
    if (rates := searched_rates(cells)) is not None:
        tables["rates"] = rates
    if texts_of(cells):
        tables["perplexity"] = perplexities(first)
    if (own := of_harness(first)) is not None:
        tables["harness"] = own
    if (compared := perplexity_comparisons(first, settings.reference)) is not None:
        tables["perplexity_comparisons"] = compared
    origins = quantised_notes(quantised_models(cells))
    notes = [*shortfall_notes(cells), *mask_notes(cells), *rate_notes(cells), *origins]
    noted = {name: _with_notes(table, notes) for name, table in tables.items()}
    return noted | {name: _with_notes(table, origins) for name, table in _tables_of_bases(cells).items()}


def _tables_of_bases(cells: Sequence[Cell]) -> dict[str, tuple[Layout, pd.DataFrame]]:
    """Return what was done to the bases of the cells' rows; nothing where their records are not in the same results."""
    moved, fitted = read_bases(cells)
    experiment = cells[0].experiment
    found = {"rotations": rotations(moved, experiment), "fits": fits(fitted, experiment), "ridges": ridges(fitted, experiment)}
    return {name: table for name, table in found.items() if table is not None}


def _with_notes(table: tuple[Layout, pd.DataFrame], notes: Sequence[str]) -> tuple[Layout, pd.DataFrame]:
    layout, frame = table
    return replace(layout, notes=[*layout.notes, *notes]), frame


@guarded(TABLES)
def main(
    out: Annotated[Path, typer.Option(help="Folder for the tables; replaced as a whole."), WRITES],
    settings: Annotated[str, typer.Option(help="Which tables, as JSON: reference, accuracy, ablations."), READS] = "{}",
    cells: CellsOption = None,
    cells_from: ListOption = None,
    more: MoreArgument = None,
    force: Force = False,
) -> None:
    """Write all tables as .csv, .md, .tex and .html, and cells.csv with the origin of every number."""

    def action() -> str:
        names = write_tables(listed(cells, more, cells_from), out, load(TableSettings, settings), force=force)
        return f"{out}: {', '.join(names)}"

    run_reporting_errors(action)
