"""The page's first table: for each ratio and measure the best row, the best of PAT's, and what removes nothing. Computes no number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from study.report.page.run import Run
from study.report.page.tables import without_one_model
from study.report.page.verdict import ratios_of, tells, unpruned
from study.results.cells import METRIC_LABELS, Row, models_of, rows_of
from study.results.grid import texts_of
from study.tables.accuracy import decimals, percent
from study.tables.layouts import HOLE, Layout

POINTS = 100.0
CAPTION = "The best row of each measure; ones close to it may be as good, which the sentences below say."
HEADER = ["Model", "Removed", "Measured by", "Best row", "Best of PAT", "Nothing removed"]


def glance(run: Run) -> Layout:
    """Return a line for each model, ratio and measure."""
    rows = [
        [model, percent(ratio), *line]
        for model in models_of(run.cells)
        for ratio in ratios_of(run, model)
        for line in _lines(run, model, ratio)
    ]
    return without_one_model(Layout(CAPTION, HEADER, rows, text_columns=len(HEADER)))


def _lines(run: Run, model: str, ratio: float) -> Iterator[list[str]]:
    rows = rows_of(run.cells)
    for text in texts_of(run.cells):
        values = {row: it.mean for row in rows if (it := run.grid.perplexity(model, row, text, "token")) is not None}
        if any(row.ratio == ratio for row in values):
            yield [f"perplexity of {text}, lower is better", *_entries(run, values, ratio, 2, sign=1)]
    for metric, grid in run.grids.items():
        values = {row: POINTS * it.mean for row in rows if (it := grid.mean(model, row)) is not None}
        if any(row.ratio == ratio for row in values):
            best, *others = _entries(run, values, ratio, 1, sign=-1)
            none = f"none is shown to be better than guessing, {POINTS * grid.chance:.1f}"
            name = f"accuracy in percent, {METRIC_LABELS.get(metric, metric)}"
            yield [name, best if tells(grid, model, ratio) else none, *others]


def _entries(run: Run, values: Mapping[Row, float], ratio: float, digits: int, *, sign: int) -> list[str]:
    """Return value and name of the best row, of the best of PAT's, and of what prunes nothing, each a hole where there is none."""
    here = sorted((row for row in values if row.ratio == ratio), key=lambda row: sign * values[row])
    whole = unpruned(run.grid, values) if ratio else None
    found = [here[0], next((row for row in here if row.mode == "PAT"), None), whole]
    return [HOLE if row is None else f"{decimals(values[row], digits)} · {row.name}" for row in found]
