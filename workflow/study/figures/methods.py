"""Draws figure 1 of the paper from the cells' JSONs: every method's accuracy, a panel per model and ratio, the paper's beside ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pat.io.artefacts import write_text
from study.experiment.methods import METHODS
from study.experiment.table_settings import ZERO_SHOT, AccuracyTable
from study.figures.heading import heading
from study.figures.lines import LINE_IN, draw_points, name_lines, names_in_order
from study.figures.style import GREY, VERMILION, as_written, below, figure, save
from study.results.cells import Row, models_of, rows_of
from study.results.grid import Grid, headline_grid
from study.results.published import Printed
from study.tables.accuracy import percent
from study.tables.layouts import csv_text


def points(grid: Grid, printed: Printed) -> pd.DataFrame:
    """Return the figure's data: one row per model, panel and method, accuracies in 0..1; the unpruned methods stand in every panel."""
    rows = rows_of(grid.cells)
    panels = sorted({row.ratio for row in rows if row.ratio}) or [0.0]
    records = [
        _point(grid, printed, model, panel, row)
        for model in models_of(grid.cells)
        for panel in panels
        for row in rows
        if row.ratio in (0.0, panel)
    ]
    return pd.DataFrame([record for record in records if record])


def _point(grid: Grid, printed: Printed, model: str, panel: float, row: Row) -> dict[str, object]:
    value = grid.mean(model, row)
    if value is None:
        return {}
    papers = printed.lookup(model, row.method, row.base_method, row.ratio) if grid.metric == printed.metric else None
    return {
        "model": model, "panel": panel, "method": row.method, "name": row.name, "mode": row.mode, "ratio": row.ratio,
        "accuracy": value.mean, "ci95": value.half_width, "interval_over": value.source, "seeds": value.seeds,
        "paper": None if papers is None else papers / 100, "chance": grid.chance, "metric": grid.metric,
    }  # fmt: skip


def draw(data: pd.DataFrame, drawing: Figure, title: str, whole: str | None = None) -> None:
    """Fill `drawing` with a line of panels per model and a column per ratio; a line across marks the row `whole`, which was not pruned."""
    models, ratios = sorted(data["model"].unique()), sorted(data["panel"].unique())
    names = names_in_order(data)
    panels = drawing.subplots(len(models), len(ratios), sharex=True, sharey=True, squeeze=False)
    for line, model in zip(panels, models, strict=True):
        for axes, ratio in zip(line, ratios, strict=True):
            _panel(axes, data[(data["model"] == model) & (data["panel"] == ratio)], names, whole)
            axes.set_title(f"{percent(ratio)} removed")
        name_lines(line[0], names)
        line[0].set_ylabel(model)
    panels[0, 0].set_xlim(left=0)  # a bar over few seeds can reach below
    for axes in panels[-1]:
        axes.set_xlabel("mean accuracy (%)")
    below(drawing, panels.flat)
    drawing.suptitle(title, fontsize=9, x=0.01, ha="left")


def _whole(grid: Grid) -> str | None:
    """Return the row that all others are measured by: the first that is tuned and prunes nothing, else the first that prunes nothing."""
    rows = [row for row in rows_of(grid.cells) if row.ratio == 0]
    tuned = [row for row in rows if METHODS[row.base_method].tunes]
    return next((row.method for row in [*tuned, *rows]), None)


def _panel(axes: Axes, data: pd.DataFrame, names: Mapping[str, str], whole: str | None) -> None:
    order = list(names)
    for method, accuracy in data.loc[data["method"] == whole, ["method", "accuracy"]].head(1).itertuples(index=False):
        axes.axvline(100 * accuracy, color=GREY, linewidth=0.8, label=f"{as_written(names[method])}, nothing removed")
    draw_points(axes, data, order, "accuracy", 100)
    known = data[data["paper"].notna()]
    if not known.empty:
        places = [order.index(method) for method in known["method"]]
        axes.plot(100 * known["paper"], places, "D", color=VERMILION, markerfacecolor="none", label="printed in the paper")
    if not data.empty:
        axes.axvline(100 * float(data["chance"].iloc[0]), color=GREY, linestyle=(0, (4, 2)), linewidth=1, label="guessing")
    axes.grid(axis="both", color="#DDDDDD", linewidth=0.6)


def write_methods(paths: Sequence[Path], accuracy: AccuracyTable | None, out: Path, *, of_cells: int | None = None) -> str:
    """Write methods.png, methods.pdf and methods.csv into `out`; returns the metric they show. Raises UserError on broken cells.

    `accuracy` is the paper's table whose numbers stand beside ours; None for the zero-shot one.
    """
    grid = headline_grid(paths)
    data = points(grid, Printed(accuracy or ZERO_SHOT))
    width = 2.0 + 2.2 * data["panel"].nunique()
    height = 1.0 + data["model"].nunique() * (0.6 + LINE_IN * data["method"].nunique())
    with figure(max(width, 4.6), height) as drawing:
        draw(data, drawing, heading(grid, data["interval_over"], of_cells=of_cells), _whole(grid))
        save(drawing, out, "methods")
    write_text(out / "methods.csv", csv_text(data, digits=6))
    return grid.metric
