"""What stands above a figure of accuracies: the experiment, the scoring, what the bars are, and whether the scoring tells anything."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from study.results.cells import METRIC_LABELS, Cell
from study.results.grid import Grid, beats_guessing
from study.results.unfinished import unfinished


def heading(grid: Grid, intervals: Iterable[object], before: str = "", of_cells: int | None = None) -> str:
    """Return a figure's heading; `intervals` are what its bars are over, "" where there is none, and `before` is said first.

    Where the experiment has more cells, `of_cells`, it says so.
    """
    bars = " and ".join(sorted({str(source) for source in intervals} - {""})) or "nothing"
    scoring = METRIC_LABELS.get(grid.metric, grid.metric)
    doubt = "" if beats_guessing(grid) else "\nno row is shown to be better than guessing"
    return f"{marked_name(grid.cells, of_cells)}: {before}{scoring}{doubt}\nbars: 95 % interval over {bars}"


def marked_name(cells: Sequence[Cell], of_cells: int | None) -> str:
    """Return the experiment's name, below a line that says how many of its cells are there where it has more."""
    mark = unfinished(len(cells), of_cells)
    return f"{mark}\n{cells[0].experiment}" if mark else cells[0].experiment
