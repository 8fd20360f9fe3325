"""Draws figure 4 of the paper from the cells' JSONs: accuracy against the share of trainable parameters, a panel per model and ratio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, NullFormatter

from pat.io.artefacts import write_text
from study.experiment.methods import METHODS
from study.figures.heading import heading
from study.figures.style import VERMILION, as_written, below, figure, from_zero, grid_lines, look_of, part_of, save, shared_out
from study.results.cells import Row, models_of, rows_of
from study.results.grid import Grid, headline_grid
from study.results.published import PrintedTrainable
from study.tables.accuracy import percent
from study.tables.layouts import csv_text

SAME = 0.01
"""Shares nearer to each other than this, relatively, are one: variants of one size are no curve and get no line."""
PAPER = "printed in the paper"
WIDE = 3.0
"""Shares that differ by more than this factor get a logarithmic axis."""


def points(grid: Grid, printed: PrintedTrainable) -> pd.DataFrame:
    """Return the figure's data: one row per model, panel and table row; shares are of the unpruned and the added parameters, in 0..1."""
    rows = rows_of(grid.cells)
    panels = sorted({row.ratio for row in rows if row.ratio}) or [0.0]
    places = [(model, panel) for model in models_of(grid.cells) for panel in panels]
    records = [_point(grid, model, panel, row) for model, panel in places for row in rows if row.ratio in (0.0, panel)]
    if grid.metric == printed.metric:
        for model, panel in places:
            records += [{"model": model, "panel": panel, "name": PAPER, **it} for it in printed.lookup(model, panel)]
    return pd.DataFrame([record for record in records if record])


def _point(grid: Grid, model: str, panel: float, row: Row) -> dict[str, object]:
    value = grid.mean(model, row)
    known = [cell for cell in grid.members(model, row) if cell.trainable_parameters is not None]
    if value is None or not known:
        return {}
    trainable = fmean(cell.trainable_parameters or 0 for cell in known)
    share = trainable / (known[0].parameters.before.unique + trainable)
    return {
        "model": model, "panel": panel, "name": _series(row), "mode": row.mode, "label": row.label, "method": row.method,
        "ratio": row.ratio, "trainable_parameters": trainable, "trainable_share": share,
        "accuracy": value.mean, "ci95": value.half_width, "interval_over": value.source, "seeds": value.seeds, "metric": grid.metric,
    }  # fmt: skip


def _series(row: Row) -> str:
    """Return what all rows of a method are called; of a method that a plugin brought, its own name."""
    method = METHODS.get(row.base_method)
    return row.base_method if method is None else method.label


def draw(data: pd.DataFrame, lines: Sequence[_Line], drawing: Figure, title: str) -> None:
    """Fill `drawing` with a line of panels per model, or several where the series are many, and a column per ratio.

    A method's rows of several sizes are one series, joined by a line. Each panel has the series that prune nothing.
    """
    ratios = sorted(data["panel"].unique())
    panels = drawing.subplots(len(lines), len(ratios), sharex=True, sharey=True, squeeze=False)
    for line, it in zip(panels, lines, strict=True):
        for axes, ratio in zip(line, ratios, strict=True):
            _panel(axes, data[(data["model"] == it.model) & (data["panel"] == ratio)], it.positions)
            axes.set_title(f"{it.title}, {percent(ratio)} removed")
        line[0].set_ylabel("mean accuracy (%)")
    for axes in panels[-1]:
        axes.set_xlabel("trainable share of all parameters (%)")
        axes.margins(x=0.15, y=0.12)
        tuned = data.loc[data["trainable_share"] > 0, "trainable_share"]
        if tuned.max() > WIDE * tuned.min():
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_formatter("{x:g}")
    from_zero(panels.flat)
    below(drawing, panels.flat)
    drawing.suptitle(title, fontsize=9, x=0.01, ha="left")


@dataclass(frozen=True)
class _Line:
    """A model's panels; `positions`: its series, and the place of each in the order of the tables, which fixes colours and signs."""

    model: str
    title: str
    positions: Mapping[str, int]


def _lines(data: pd.DataFrame) -> list[_Line]:
    names = list(dict.fromkeys(data.loc[data["name"] != PAPER, "series"]))
    whole, groups = shared_out(names, data.groupby("series")["ratio"].max())
    return [
        _Line(model, part_of(model, number, len(groups)), {name: names.index(name) for name in [*whole, *group]})
        for model in sorted(data["model"].unique())
        for number, group in enumerate(groups)
    ]


def _series_of(data: pd.DataFrame) -> pd.Series:
    """Return each row's series: its method where that has rows of several sizes, which make a curve; else the row is one by itself."""
    modes = data["mode"].fillna("")
    method = data["name"].where(modes.isin(["", "PAT"]), data["name"] + " " + modes)
    row = data["label"].where(modes.isin(["", "PAT"]), data["label"] + " " + modes)
    steps = data.assign(method=method).groupby(["model", "panel", "method"])["trainable_share"].agg(_smallest_step)
    curves = steps.groupby("method").min() > SAME
    return method.where(method.map(curves), row)


def _smallest_step(shares: pd.Series) -> float:
    """Return the least relative step between shares in their order; that of one alone is 0, it makes no curve."""
    return float(shares.sort_values().pct_change().min()) if len(shares) > 1 else 0.0


def _panel(axes: Axes, data: pd.DataFrame, series: Mapping[str, int]) -> None:
    """Draw the series by their positions, which fix their looks."""
    for name, position in series.items():
        mine = data[(data["series"] == name) & (data["name"] != PAPER)].sort_values("trainable_share")
        if mine.empty:
            continue
        (color, marker), shown = look_of(position), as_written(name)
        whole = bool((mine["ratio"] == 0).all())
        if not mine["trainable_share"].any():  # nothing is tuned: no place on the axis, which may be logarithmic
            axes.axhline(100 * mine["accuracy"].mean(), color=color, linestyle=(0, (4, 2)), linewidth=1, label=f"{shown}, not tuned")
            continue
        errors = 100 * mine["ci95"].astype(float).fillna(0.0)
        axes.errorbar(
            100 * mine["trainable_share"], 100 * mine["accuracy"], yerr=errors, color=color, marker=marker, capsize=2.5, elinewidth=1,
            linewidth=0.9 if len(mine) > 1 else 0, label=f"{shown}, nothing removed" if whole else shown,
        )  # fmt: skip
        if len(mine) > 1:
            _name_rows(axes, mine, color, above=not whole)
    printed = data[data["name"] == PAPER]
    if not printed.empty:
        axes.plot(100 * printed["trainable_share"], 100 * printed["accuracy"], "D", color=VERMILION, markerfacecolor="none", label=PAPER)
        _name_rows(axes, printed[~printed["label"].isin(set(data.loc[data["name"] != PAPER, "label"]))], VERMILION, above=True)
    grid_lines(axes)


def _name_rows(axes: Axes, rows: pd.DataFrame, color: str, *, above: bool) -> None:
    """Write each row's name beside its point; of neighbours every second one a line further off."""
    for place, (label, share, accuracy) in enumerate(zip(rows["label"], rows["trainable_share"], rows["accuracy"], strict=True)):
        away, shown = 8 + 8 * (place % 2), as_written(label)
        axes.annotate(
            shown, (100 * share, 100 * accuracy), xytext=(0, away if above else -away - 4), textcoords="offset points", ha="center",
            fontsize=6.5, color=color, path_effects=[withStroke(linewidth=2, foreground="white")],
        )  # fmt: skip


def write_trainable(paths: Sequence[Path], out: Path, *, of_cells: int | None = None) -> str:
    """Write trainable.png, .pdf and .csv into `out`; returns the metric they show. Raises UserError on broken cells."""
    grid = headline_grid(paths)
    data = points(grid, PrintedTrainable())
    data = data.assign(series=_series_of(data))
    lines = _lines(data)
    with figure(max(1.2 + 2.8 * data["panel"].nunique(), 4.6), 1.1 + 2.4 * len(lines)) as drawing:
        draw(data, lines, drawing, heading(grid, data["interval_over"].dropna(), of_cells=of_cells))
        save(drawing, out, "trainable")
    write_text(out / "trainable.csv", csv_text(data, digits=6))
    return grid.metric
