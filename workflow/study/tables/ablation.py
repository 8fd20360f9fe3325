"""Lays out ablation tables: rows that differ in named factors, as in table 2 of the paper. Writes nothing."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from study.experiment.table_settings import Factor
from study.results.cells import Row, models_of, rows_of
from study.results.grid import Grid
from study.results.published import PrintedAblation
from study.tables.accuracy import ModelColumns, caption, chance_notes, interval_notes, row_names
from study.tables.layouts import HOLE, Layout
from study.tables.shares import pruned


def ablation(grid: Grid, name: str, factors: Sequence[str], printed: PrintedAblation) -> tuple[Layout, pd.DataFrame]:
    """Return one metric's ablation over `factors`: the rows that have them all, and above them those that prune nothing and have none."""
    models, places = models_of(grid.cells), _places(grid, factors)
    rows = list(places)
    found = {
        (model, row): printed.lookup(model, row.method, row.base_method, row.ratio, place)
        for model in models
        for row, place in places.items()
    }
    columns = ModelColumns(grid, {cell: number for cell, number in found.items() if number is not None})
    texts = {row: [factor_text(place.get(factor)) for factor in factors] for row, place in places.items()}
    header = ["Pruned", "Method", *factors, *columns.header]
    body = [["", "guessing", *[""] * len(factors), *columns.chance]]
    body += [[pruned(grid.cells, row), row.name, *texts[row], *columns.entries(row)] for row in rows]
    frame = pd.DataFrame([row_names(row) | dict(zip(factors, texts[row], strict=True)) | columns.record(row) for row in rows])
    notes = [*interval_notes(grid, models, rows), *chance_notes(grid, models, rows), *columns.notes(printed.number)]
    return Layout(f"Ablation {name}. {caption(grid)}", header, body, text_columns=2 + len(factors), notes=notes), frame


def _places(grid: Grid, factors: Sequence[str]) -> dict[Row, dict[str, Factor]]:
    """Return the table's rows with what they have of its factors, within a ratio in the order of these."""
    own = {row: {name: value for name, value in grid.factors(row).items() if name in factors} for row in rows_of(grid.cells)}
    shown = {row: place for row, place in own.items() if len(place) == len(factors) or (row.ratio == 0 and not place)}
    return dict(sorted(shown.items(), key=lambda entry: (entry[0].ratio, [_order(entry[1].get(factor)) for factor in factors])))


def _order(value: Factor | None) -> tuple[bool, float, str]:
    """Numbers by size and before texts; no before yes."""
    is_number = isinstance(value, int | float)
    return (not is_number, float(value) if isinstance(value, int | float) else 0.0, "" if value is None else str(value))


def factor_text(value: Factor | None) -> str:
    """Return what a table shows of a factor."""
    if value is None:
        return HOLE
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
