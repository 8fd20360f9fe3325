"""Lays out what the trained masks chose: their overlap with the channels of the Fisher order, and what it would be by chance."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import pandas as pd

from study.results.cells import Cell, models_of, rows_of
from study.results.grid import Grid
from study.results.milestones import overlaps
from study.tables.accuracy import percent
from study.tables.layouts import Layout


def trained_masks(grid: Grid) -> tuple[Layout, pd.DataFrame] | None:
    """Return a line per model and row whose mask was trained, means over seeds; None where there is none, or nothing was measured."""
    records = [
        record
        for model in models_of(grid.cells)
        for row in rows_of(grid.cells)
        if (record := _record(model, grid.members(model, row))) is not None
    ]
    if not records:
        return None
    body = [
        [record["model"], record["label"], percent(record["ratio"]), *(f"{100 * record[key]:.0f}" for key in ("fisher_overlap", "chance"))]
        for record in records
    ]
    caption = (
        f"{grid.cells[0].experiment}: what the trained masks keep. Fisher: the share of a mask's channels that the Fisher order "
        "of the base keeps too, measured on the instruction set before tuning; chance: the share that any mask of this width has."
    )
    layout = Layout(caption, ["Model", "Method", "Pruned", "Fisher (%)", "chance (%)"], body, text_columns=3)
    return layout, pd.DataFrame(records)


def mask_notes(cells: Sequence[Cell]) -> list[str]:
    """Say below every table which rows' masks were not 0/1 when their tuning ended: what is evaluated is not what was trained."""
    found = [cell for cell in cells if ((cell.tuning or {}).get("health") or {}).get("undecided")]
    rows = dict.fromkeys(f"{cell.row.name} at {percent(cell.ratio_requested)}" for cell in found)
    return [f"Gates half open at the end of the tuning, and rounded in what is evaluated: {', '.join(rows)}."] if rows else []


def _record(model: str, cells: Sequence[Cell]) -> dict[str, Any] | None:
    found = [pair for cell in cells if (pair := overlaps((cell.tuning or {}).get("health"))) is not None]
    if not found:
        return None
    row = cells[0].row
    return {
        "model": model, "method": row.method, "label": row.name, "ratio": row.ratio, "seeds": len(found),
        "fisher_overlap": fmean(fisher for fisher, _ in found), "chance": fmean(chance for _, chance in found),
    }  # fmt: skip
