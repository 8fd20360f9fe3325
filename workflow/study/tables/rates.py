"""Lays out the learning rates that were searched: what was tried, which was best, and where that is an end of what was tried."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from study.results.cells import Cell, models_of, rows_of
from study.results.grid import Grid
from study.tables.accuracy import percent
from study.tables.layouts import HOLE, Layout

AT_AN_END = "†"


def searched_rates(grid: Grid) -> tuple[Layout, pd.DataFrame] | None:
    """Return a line per model and row whose rate was searched; None where none was."""
    arms = [cells for model in models_of(grid.cells) for row in rows_of(grid.cells) if (cells := _searched(grid.members(model, row)))]
    if not arms:
        return None
    body = [_line(cells[0]) for cells in arms]
    frame = pd.DataFrame([record for cells in arms for record in _records(cells[0])])
    caption = (
        f"{grid.cells[0].experiment}: learning rates that were searched. Behind each that was tried stands the cross-entropy, in nats a "
        "token, of rows that were kept apart; the smallest wins."
    )
    notes = [_how([cells[0] for cells in arms]), *_at_an_end(arms)]
    return Layout(caption, ["Model", "Method", "Mode", "Pruned", "Rate", "Tried"], body, text_columns=3, notes=notes), frame


def rate_notes(cells: Sequence[Cell]) -> list[str]:
    """Say below every table where the best rate may lie beyond what was searched."""
    searched = {(cell.model, cell.row): cell for cell in _searched(cells)}.values()
    ended = [cell for cell in searched if is_at_an_end(cell)]
    if not ended:
        return []
    return [
        f"Of {len(searched)} searches of a learning rate {len(ended)} found the smallest or largest candidate best, so that the best rate "
        "may lie beyond (table rates)."
    ]


def is_at_an_end(cell: Cell) -> bool:
    """Whether a cell's rate is the smallest or the largest of those that were tried."""
    tried = [candidate["learning_rate"] for candidate in _tuning(cell)["search"]["candidates"]]
    return _tuning(cell)["learning_rate"] in (min(tried), max(tried))


def _searched(cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells whose record says what a search has found."""
    return [cell for cell in cells if "candidates" in _tuning(cell).get("search", {})]


def _tuning(cell: Cell) -> dict[str, Any]:
    return cell.tuning or {}


def _line(cell: Cell) -> list[str]:
    tried = ", ".join(
        f"{candidate['learning_rate']:g}: {HOLE if candidate['dev_loss'] is None else format(candidate['dev_loss'], '.3f')}"
        for candidate in _tuning(cell)["search"]["candidates"]
    )
    mark = AT_AN_END if is_at_an_end(cell) else ""
    return [cell.model, cell.row.label, cell.row.mode, percent(cell.row.ratio), f"{_tuning(cell)['learning_rate']:g}{mark}", tried]


def _records(cell: Cell) -> list[dict[str, Any]]:
    row, chosen = cell.row, _tuning(cell)["learning_rate"]
    place = {"model": cell.model, "method": row.method, "label": row.label, "mode": row.mode, "ratio": row.ratio}
    return [place | candidate | {"chosen": candidate["learning_rate"] == chosen} for candidate in _tuning(cell)["search"]["candidates"]]


def _how(cells: Sequence[Cell]) -> str:
    searches = [_tuning(cell)["search"] for cell in cells]
    lengths = sorted({"as many steps as the tuning" if search["steps"] is None else f"{search['steps']} steps" for search in searches})
    rows = sorted({search["dev_rows"] for search in searches})
    return f"Each candidate was tuned for {' or '.join(lengths)}; rows kept apart: {' or '.join(map(str, rows))}. {HOLE}: diverged."


def _at_an_end(arms: Sequence[Sequence[Cell]]) -> list[str]:
    if not any(is_at_an_end(cells[0]) for cells in arms):
        return []
    return [f"{AT_AN_END}: the smallest or largest that was tried; the best of all may lie beyond."]
