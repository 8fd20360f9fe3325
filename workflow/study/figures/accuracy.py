"""Draws accuracy against pruning ratio, a panel per model, from the cells' JSONs alone; the data of the figure lie beside it as CSV."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pat.io.artefacts import write_text
from study.figures.heading import heading
from study.figures.lines import names_in_order
from study.figures.style import GREY, as_written, below, figure, from_zero, grid_lines, look_of, part_of, save, shared_out, shifts
from study.results.cells import Row, models_of, rows_of
from study.results.grid import Grid, headline_grid
from study.statistics.intervals import Estimate
from study.tables.layouts import csv_text

PANELS_A_LINE = 3
GUESSING = "guessing"
FEW = 8
DODGE = 0.012
"""Methods stand at most this far apart at one ratio, so that their error bars do not cover each other."""


def points(grid: Grid) -> pd.DataFrame:
    """Return the figure's data: one row per model, method and ratio, accuracies in 0..1."""
    records = [
        _point(model, row, value, grid)
        for model in models_of(grid.cells)
        for row in rows_of(grid.cells)
        if (value := grid.mean(model, row)) is not None
    ]
    return pd.DataFrame(records)


def _point(model: str, row: Row, value: Estimate, grid: Grid) -> dict[str, object]:
    return {
        "model": model, "method": row.method, "name": row.name, "ratio": row.ratio, "accuracy": value.mean, "ci95": value.half_width,
        "interval_over": value.source, "seeds": value.seeds, "chance": grid.chance, "metric": grid.metric,
    }  # fmt: skip


def draw(data: pd.DataFrame, views: Sequence[_View], drawing: Figure, title: str) -> None:
    """Fill `drawing` with a panel per model, or several where the methods are many; each has those that prune nothing.

    Such a method is one point and a faint line across.
    """
    columns = min(len(views), PANELS_A_LINE)
    panels = drawing.subplots(math.ceil(len(views) / PANELS_A_LINE), columns, sharey=True, sharex=True, squeeze=False)
    for place, (axes, view) in enumerate(zip(panels.flat, views, strict=False)):
        _panel(axes, data[data["model"] == view.model], view.methods)
        axes.set_title(view.title)
        lowest = place + columns >= len(views)
        axes.xaxis.set_tick_params(labelbottom=lowest)
        axes.set_xlabel("asked to be removed (%)" if lowest else "")
    for axes in list(panels.flat)[len(views) :]:
        axes.set_axis_off()
    from_zero(panels.flat)
    for axes in panels[:, 0]:
        axes.set_ylabel("mean accuracy (%)")
    below(drawing, panels.flat, last=GUESSING)
    drawing.suptitle(title, fontsize=9, x=0.01, ha="left")


def _views(data: pd.DataFrame) -> list[_View]:
    """Return the panels. The order of the tables fixes the methods' colours and signs."""
    ratios = data.groupby("method")["ratio"].max()
    looks = {method: (name, *look_of(position)) for position, (method, name) in enumerate(names_in_order(data).items())}

    def side_by_side(methods: Sequence[str]) -> list[_Series]:
        apart = shifts(data["ratio"], len(methods), DODGE)
        return [_Series(method, *looks[method], shift, bool(ratios[method])) for method, shift in zip(methods, apart, strict=True)]

    whole, groups = shared_out(list(looks), ratios)
    return [
        _View(model, part_of(model, number, len(groups)), [*side_by_side(whole), *side_by_side(group)])
        for model in sorted(data["model"].unique())
        for number, group in enumerate(groups)
    ]


@dataclass(frozen=True)
class _Series:
    method: str
    name: str
    color: str
    marker: str
    shift: float
    prunes: bool


@dataclass(frozen=True)
class _View:
    model: str
    title: str
    methods: Sequence[_Series]


def _panel(axes: Axes, data: pd.DataFrame, methods: Sequence[_Series]) -> None:
    for it in methods:
        mine = data[data["method"] == it.method]
        if mine.empty:
            continue
        if not it.prunes:
            axes.axhline(100 * mine["accuracy"].iloc[0], color=it.color, linewidth=0.8, alpha=0.5)
        errors = 100 * mine["ci95"].astype(float).fillna(0.0)
        axes.errorbar(
            100 * (mine["ratio"] + it.shift),
            100 * mine["accuracy"],
            yerr=errors,
            color=it.color,
            marker=it.marker,
            capsize=2.5,
            elinewidth=1,
            label=as_written(it.name),
        )
    chance = 100 * float(data["chance"].iloc[0])
    axes.axhline(chance, color=GREY, linestyle=(0, (4, 2)), linewidth=1, label=GUESSING)
    axes.set_xticks(sorted(100 * data["ratio"].unique()))
    grid_lines(axes)


def write_figures(paths: Sequence[Path], out: Path, *, of_cells: int | None = None) -> str:
    """Write accuracy.png, accuracy.pdf and accuracy.csv into `out`; returns the metric they show. Raises UserError on broken cells."""
    grid = headline_grid(paths)
    data = points(grid)
    views = _views(data)
    width, height = 1.2 + 2.6 * min(len(views), PANELS_A_LINE), 1.0 + 2.6 * math.ceil(len(views) / PANELS_A_LINE)
    least = 4.6 if data["method"].nunique() <= FEW else 7.0  # for the legend's columns
    with figure(max(width, least), height) as drawing:
        draw(data, views, drawing, heading(grid, data["interval_over"], of_cells=of_cells))
        save(drawing, out, "accuracy")
    write_text(out / "accuracy.csv", csv_text(data, digits=6))
    return grid.metric
