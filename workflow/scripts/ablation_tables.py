"""Lays out ablation tables: rows that differ in named factors, as in table 2 of the paper. Writes nothing."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from accuracy_tables import ModelColumns, caption, chance_notes, interval_notes, percent, row_names
from cells import Row, models_of, rows_of
from grid import Grid
from layouts import HOLE, Layout
from pat.settings import Factor
from published import PrintedAblation


def ablation(grid: Grid, name: str, factors: Sequence[str], printed: PrintedAblation) -> tuple[Layout, pd.DataFrame]:
    """Return one metric's ablation over `factors`: the rows that have them all, and above them those that prune nothing and have none."""
    models, rows = models_of(grid.cells), _rows(grid, factors)
    found = {(model, row): printed.lookup(model, row.base_method, row.ratio, grid.factors(row)) for model in models for row in rows}
    columns = ModelColumns(grid, {place: number for place, number in found.items() if number is not None})
    header = ["Pruned", "Method", *factors, *columns.header]
    places = {row: [factor_text(grid.factors(row).get(factor)) for factor in factors] for row in rows}
    empty = [""] * len(factors)
    body = [["", "guessing", *empty, *columns.chance]]
    body += [[percent(row.ratio), row.name, *places[row], *columns.entries(row)] for row in rows]
    frame = pd.DataFrame([row_names(row) | dict(zip(factors, places[row], strict=True)) | columns.record(row) for row in rows])
    notes = [*interval_notes(grid, models, rows), *chance_notes(grid, models, rows), *columns.notes(printed.number)]
    return Layout(f"Ablation {name}. {caption(grid)}", header, body, text_columns=2 + len(factors), notes=notes), frame


def _rows(grid: Grid, factors: Sequence[str]) -> list[Row]:
    """Return the table's rows, within a ratio in the order of their factors."""
    own = {row: grid.factors(row) for row in rows_of(grid.cells)}
    rows = [row for row in own if own[row].keys() >= set(factors) or (row.ratio == 0 and not own[row])]
    return sorted(rows, key=lambda row: (row.ratio, [_order(own[row].get(factor)) for factor in factors]))


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
