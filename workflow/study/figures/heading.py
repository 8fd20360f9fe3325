"""What stands above a figure of cells: the experiment and what of it is drawn, quantised models; of accuracies the scoring too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from study.results.cells import METRIC_LABELS, Cell
from study.results.grid import Grid, beats_guessing
from study.results.quantised import quantised_lines, quantised_models
from study.results.unfinished import unfinished


def heading(grid: Grid, intervals: Iterable[object], before: str = "", of_cells: int | None = None) -> str:
    """Return the heading of a figure of accuracies: also by which scoring, whether that tells anything, and what the bars are over.

    `intervals` are what its bars are over, "" where there is none, and `before` is said first. `of_cells` as in `marked_heading`.
    """
    bars = " and ".join(sorted({str(source) for source in intervals} - {""})) or "nothing"
    scoring = METRIC_LABELS.get(grid.metric, grid.metric)
    doubt = "" if beats_guessing(grid) else "\nno row is shown to be better than guessing"
    return f"{marked_heading(grid.cells, f'{before}{scoring}', of_cells)}{doubt}\nbars: 95 % interval over {bars}"


def marked_heading(cells: Sequence[Cell], drawn: str, of_cells: int | None) -> str:
    """Return the experiment's name and what of it is drawn, and below that a line for each of its models that is quantised.

    Where the experiment has more cells, `of_cells`, a line above says how many of them are there.
    """
    mark = unfinished(len(cells), of_cells)
    return "\n".join([*([mark] if mark else []), f"{cells[0].experiment}: {drawn}", *quantised_lines(quantised_models(cells))])
