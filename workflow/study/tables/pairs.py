"""Which rows a comparison sets beside which, and the words it has for what it finds. Computes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from study.results.cells import Cell, Row, models_of, rows_of
from study.tables.layouts import HOLE

REFERENCE, RANDOM = "pat", "pat-random"
"""The row that others are compared with where an experiment names none."""
NO_DIFFERENCE, BETTER, WORSE = "no difference shown", "better", "worse"
ONE_SEED = "Of one seed, a word compares two models, not two methods: it says nothing of how other seeds would do."
"""The note below a table that has comparisons of one seed."""


@dataclass(frozen=True)
class Pair:
    """A row and the reference row it is compared with, on one model."""

    model: str
    row: Row
    reference: Row


def pairs_of(cells: Sequence[Cell], reference: str | None = None) -> list[Pair]:
    """Return what is compared: at each ratio of the reference its peers there and the rows that prune nothing.

    Without `reference` it is the row `pat`, else the first that prunes, else the first.
    """
    rows = rows_of(cells)
    name = reference or next((row.method for row in rows if row.method == REFERENCE), None)
    name = name or next((row for row in rows if row.ratio > 0), rows[0]).method
    pairs = [(row, other) for other in rows if other.method == name for row in rows if row != other and row.ratio in (0, other.ratio)]
    found = {(cell.model, cell.row) for cell in cells}
    return [Pair(model, row, other) for model in models_of(cells) for row, other in pairs if {(model, row), (model, other)} <= found]


def names_of(pair: Pair) -> dict[str, object]:
    """Return the columns that name a pair in a table's CSV."""
    row, other = pair.row, pair.reference
    return {
        "model": pair.model, "ratio": row.ratio, "method": row.method, "label": row.label, "mode": row.mode,
        "reference": other.method, "reference_ratio": other.ratio,
    }  # fmt: skip


def p_text(value: float | None) -> str:
    """Return a p-value the way a table shows it."""
    if value is None:
        return HOLE
    return "<0.001" if value < 0.001 else f"{value:.3f}"
