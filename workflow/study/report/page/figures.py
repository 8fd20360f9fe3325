"""The page's figures: every row's perplexity and accuracy as dots with what they rest on, a chart for each model, ratio and measure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from study.report.page.charts import Dots, Entry, dots
from study.report.page.run import Run
from study.report.page.verdict import ratios_of
from study.results.cells import METRIC_LABELS, Row, models_of, rows_of
from study.results.grid import texts_of
from study.results.quantised import quantised_models
from study.statistics.intervals import Estimate
from study.tables.accuracy import percent

FARTHEST = 4.0
"""An axis of perplexities ends at so many times that of the best pruned row."""
Value = Callable[[Row], Estimate | None]


def figures(run: Run) -> list[Dots]:
    """Return the charts of all models, at each ratio the rows that prune so much, beside those that prune nothing."""
    found, formats = [], quantised_models(run.cells)
    for model in models_of(run.cells):
        named = f"{model} (quantised: {formats[model]})" if model in formats else model
        for ratio in ratios_of(run, model):
            place = f"{named}, {percent(ratio)} removed"
            for text in texts_of(run.cells):
                title = f"{place}: perplexity of {text}"
                found.append(_chart(run, title, "perplexity per token, lower is better", ratio, _perplexity(run, model, text)))
            for metric, grid in run.grids.items():
                title = f"{place}: {METRIC_LABELS.get(metric, metric)}"
                value = _accuracy(run, model, metric)
                found.append(_chart(run, title, "mean accuracy in percent", ratio, value, chance=grid.chance))
    return [chart for chart in found if chart is not None]


def _perplexity(run: Run, model: str, text: str) -> Value:
    """Return how a row's perplexity is found, without its interval over the text: all rows read the same, and it does not order them."""

    def found(row: Row) -> Estimate | None:
        value = run.grid.perplexity(model, row, text, "token")
        return None if value is None else replace(value, over_items=None)

    return found


def _accuracy(run: Run, model: str, metric: str) -> Value:
    return lambda row: run.grids[metric].mean(model, row)


def _chart(run: Run, title: str, unit: str, ratio: float, value: Value, chance: float | None = None) -> Dots | None:
    scale = 1.0 if chance is None else 100.0
    rows = [row for row in rows_of(run.cells) if row.ratio in (0, ratio)]
    entries = [_entry(row, found, scale) for row in rows if (found := value(row)) is not None]
    if not entries:
        return None
    if chance is not None:
        return dots(title, unit, entries, {"guessing": scale * chance})
    return dots(title, unit, entries, {}, edge=FARTHEST * min([entry.value for entry in entries if entry.pruned] or [entries[0].value]))


def _entry(row: Row, value: Estimate, scale: float) -> Entry:
    half = None if value.half_width is None else scale * value.half_width
    interval = "" if half is None else f" ± {half:.3g} (95 % over {value.source})"
    seeds = "1 seed" if value.seeds == 1 else f"{value.seeds} seeds"
    name = row.name if row.ratio else f"{row.name} (whole)"
    return Entry(name, scale * value.mean, half, row.mode == "PAT", row.ratio > 0, f"{scale * value.mean:.4g}{interval}, {seeds}")
