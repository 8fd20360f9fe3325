"""What stands above a figure of accuracies: the experiment, the scoring, what the bars are, and whether the scoring tells anything."""

from __future__ import annotations

from collections.abc import Iterable

from study.results.cells import METRIC_LABELS, models_of, rows_of
from study.results.grid import Grid


def heading(grid: Grid, intervals: Iterable[object], before: str = "") -> str:
    """Return a figure's heading; `intervals` are what its bars are over, "" where there is none, and `before` is said first."""
    bars = " and ".join(sorted({str(source) for source in intervals} - {""})) or "nothing"
    scoring = METRIC_LABELS.get(grid.metric, grid.metric)
    doubt = "" if _beats_guessing(grid) else "\nno row is shown to be better than guessing"
    return f"{grid.cells[0].experiment}: {before}{scoring}{doubt}\nbars: 95 % interval over {bars}"


def _beats_guessing(grid: Grid) -> bool:
    means = (grid.mean(model, row) for model in models_of(grid.cells) for row in rows_of(grid.cells))
    return any(value is not None and value.position(grid.chance) == "above" for value in means)
