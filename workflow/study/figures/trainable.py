"""Draws figure 4 of the paper from the cells' JSONs: accuracy against the share of trainable parameters, a panel per model and ratio."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pat.io.artefacts import write_text
from study.experiment.table_settings import ZERO_SHOT, AccuracyTable
from study.figures.heading import heading
from study.figures.shares import Part, draw_series, name_rows, of_row, panels_of, part_names, parts_of, series_of, share_axis, shares
from study.figures.style import VERMILION, below, figure, from_zero, save
from study.results.cells import Row
from study.results.grid import Grid, headline_grid
from study.results.published import PrintedTrainable
from study.tables.accuracy import percent
from study.tables.layouts import csv_text

PAPER = "printed in the paper"


def points(grid: Grid, printed: PrintedTrainable) -> pd.DataFrame:
    """Return the figure's data: one row per model, panel and table row; shares are of the unpruned and the added parameters, in 0..1."""
    panels = panels_of(grid)
    records = [_point(grid, model, panel, row) for model, panel, row in panels]
    if grid.metric == printed.metric:
        for model, panel in dict.fromkeys((model, panel) for model, panel, _ in panels):
            records += [{"model": model, "panel": panel, "name": PAPER, **it} for it in printed.lookup(model, panel)]
    return pd.DataFrame([record for record in records if record])


def _point(grid: Grid, model: str, panel: float, row: Row) -> dict[str, object]:
    value, share = grid.mean(model, row), shares(grid, model, row)
    if value is None or share is None:
        return {}
    return {
        **of_row(model, panel, row), **share,
        "accuracy": value.mean, "ci95": value.half_width, "interval_over": value.source, "seeds": value.seeds, "metric": grid.metric,
    }  # fmt: skip


def draw(data: pd.DataFrame, parts: Sequence[Part], drawing: Figure, title: str) -> None:
    """Fill `drawing` with a line of panels per model, or several where the series are many, and a column per ratio.

    A method's rows of several sizes are one series, joined by a line. Each panel has the series that prune nothing.
    """
    ratios = sorted(data["panel"].unique())
    panels = drawing.subplots(len(parts), len(ratios), sharex=True, sharey=True, squeeze=False)
    for line, part in zip(panels, parts, strict=True):
        for axes, ratio in zip(line, ratios, strict=True):
            _panel(axes, data[(data["model"] == part.model) & (data["panel"] == ratio)], part)
            axes.set_title(f"{part.title}, {percent(ratio)} removed")
        line[0].set_ylabel("mean accuracy (%)")
    for axes in panels[-1]:
        share_axis(axes, data)
    from_zero(panels.flat)
    below(drawing, panels.flat)
    drawing.suptitle(title, fontsize=9, x=0.01, ha="left")
    part_names(drawing)


def _panel(axes: Axes, data: pd.DataFrame, part: Part) -> None:
    """Draw a panel's series and what the paper printed; of that the rows are named which ours are not."""
    ours, printed = data[data["name"] != PAPER], data[data["name"] == PAPER]
    draw_series(axes, ours, part.positions, "accuracy", 100)
    if not printed.empty:
        axes.plot(100 * printed["trainable_share"], 100 * printed["accuracy"], "D", color=VERMILION, markerfacecolor="none", label=PAPER)
        name_rows(axes, printed[~printed["label"].isin(set(ours["label"]))], VERMILION, "accuracy", 100, above=True)


def write_trainable(paths: Sequence[Path], accuracy: AccuracyTable | None, out: Path, *, of_cells: int | None = None) -> str:
    """Write trainable.png, .pdf and .csv into `out`; returns the metric they show. Raises UserError on broken cells.

    `accuracy` is the table of the paper that ours stand beside; None for the zero-shot one.
    """
    grid = headline_grid(paths)
    data = points(grid, PrintedTrainable(accuracy or ZERO_SHOT))
    data = data.assign(series=series_of(data))
    parts = parts_of(data[data["name"] != PAPER])
    with figure(max(1.2 + 2.8 * data["panel"].nunique(), 4.6), 1.1 + 2.4 * len(parts)) as drawing:
        draw(data, parts, drawing, heading(grid, data["interval_over"].dropna(), of_cells=of_cells))
        save(drawing, out, "trainable")
    write_text(out / "trainable.csv", csv_text(data, digits=6))
    return grid.metric
