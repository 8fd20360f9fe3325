"""What figures against the share of trainable parameters have in common: the shares, which rows are one curve, and how a curve is drawn."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import fmean

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation
from matplotlib.ticker import LogLocator, NullFormatter
from matplotlib.transforms import Bbox

from study.experiment.methods import METHODS
from study.figures.style import as_written, grid_lines, look_of, part_of, shared_out
from study.results.cells import Row, models_of, rows_of
from study.results.grid import Grid

SAME = 0.01
"""Shares nearer to each other than this, relatively, are one: variants of one size are no curve and get no line."""
WIDE = 3.0
"""Shares that differ by more than this factor get a logarithmic axis."""
NAME_PT, LINE_PT, SIGN_PT = 5.0, 8.0, 2.5
"""A row's name stands so far from its point, in points, and a multiple of a line further where it would cover another's or another
point's sign, which reaches so far.
"""


def panels_of(grid: Grid) -> list[tuple[str, float, Row]]:
    """Return the rows of each panel: of a model and a ratio, with what prunes nothing in each; without ratios there is one panel, 0."""
    rows = rows_of(grid.cells)
    ratios = sorted({row.ratio for row in rows if row.ratio}) or [0.0]
    return [(model, ratio, row) for model in models_of(grid.cells) for ratio in ratios for row in rows if row.ratio in (0.0, ratio)]


def shares(grid: Grid, model: str, row: Row) -> dict[str, object] | None:
    """Return how much of a row is trainable, of the unpruned and the added parameters, in 0..1; None where no cell says so."""
    known = [cell for cell in grid.members(model, row) if cell.trainable_parameters is not None]
    if not known:
        return None
    trainable = fmean(cell.trainable_parameters or 0 for cell in known)
    return {"trainable_parameters": trainable, "trainable_share": trainable / (known[0].parameters.before.unique + trainable)}


def of_row(model: str, panel: float, row: Row) -> dict[str, object]:
    """Return what a point of a figure is of; `name` is what all rows of a method are called, of a plugin's method its own name."""
    method = METHODS.get(row.base_method)
    name = row.base_method if method is None else method.label
    return {
        "model": model, "panel": panel, "name": name, "mode": row.mode, "label": row.label, "method": row.method, "ratio": row.ratio,
    }  # fmt: skip


def series_of(data: pd.DataFrame) -> pd.Series:
    """Return each row's series: its method where that has rows of several sizes, which make a curve; else the row is one by itself."""
    modes = data["mode"].fillna("")
    method = data["name"].where(modes.isin(["", "PAT"]), data["name"] + " " + modes)
    row = data["label"].where(modes.isin(["", "PAT"]), data["label"] + " " + modes)
    # A row may have a point for each of several texts.
    once = data.assign(series=method).drop_duplicates(["model", "panel", "method", "label"])
    steps = once.groupby(["model", "panel", "series"])["trainable_share"].agg(_smallest_step)
    curves = steps.groupby("series").min() > SAME
    return method.where(method.map(curves), row)


def _smallest_step(values: pd.Series) -> float:
    """Return the least relative step between shares in their order; that of one alone is 0, it makes no curve."""
    return float(values.sort_values().pct_change().min()) if len(values) > 1 else 0.0


@dataclass(frozen=True)
class Part:
    """A model's panels with some of the series; `positions`: the place of each in the order of the tables, which fixes its look."""

    model: str
    title: str
    positions: Mapping[str, int]


def parts_of(data: pd.DataFrame) -> list[Part]:
    """Return each model's series, in several parts where they are many; what prunes nothing is in each part."""
    names = list(dict.fromkeys(data["series"]))
    whole, groups = shared_out(names, data.groupby("series")["ratio"].max())
    return [
        Part(model, part_of(model, number, len(groups)), {name: names.index(name) for name in [*whole, *group]})
        for model in sorted(data["model"].unique())
        for number, group in enumerate(groups)
    ]


def draw_series(axes: Axes, data: pd.DataFrame, positions: Mapping[str, int], column: str, times: float = 1.0) -> None:
    """Draw the points of a panel, `times` what stands in a column, with bars of `ci95`; rows of a series are joined and named.

    What is not tuned is a line across: it has no place on an axis that may be logarithmic.
    """
    for name, color, marker, mine in _in_order(data, positions):
        shown = as_written(name)
        if not mine["trainable_share"].any():
            axes.axhline(times * mine[column].mean(), color=color, linestyle=(0, (4, 2)), linewidth=1, label=f"{shown}, not tuned")
            continue
        whole = bool((mine["ratio"] == 0).all())
        errors = times * mine["ci95"].astype(float).fillna(0.0)
        axes.errorbar(
            100 * mine["trainable_share"], times * mine[column], yerr=errors, color=color, marker=marker, capsize=2.5, elinewidth=1,
            linewidth=0.9 if len(mine) > 1 else 0, label=f"{shown}, nothing removed" if whole else shown,
        )  # fmt: skip
        if len(mine) > 1:
            name_rows(axes, mine, color, column, times, above=not whole)
    grid_lines(axes)


def _in_order(data: pd.DataFrame, positions: Mapping[str, int]) -> Iterator[tuple[str, str, str, pd.DataFrame]]:
    """Yield the series that a panel has, with the colour and sign of each, from the smallest share to the largest."""
    for name, position in positions.items():
        mine = data[data["series"] == name].sort_values("trainable_share")
        if not mine.empty:
            yield name, *look_of(position), mine


def name_rows(axes: Axes, rows: pd.DataFrame, color: str, column: str, times: float, *, above: bool) -> None:
    """Write each row's name beside its point. `part_names` sets those apart that cover each other."""
    for label, share, value in zip(rows["label"], rows["trainable_share"], rows[column], strict=True):
        axes.annotate(
            as_written(label), (100 * share, times * value), xytext=(0, NAME_PT if above else -NAME_PT), textcoords="offset points",
            ha="center", va="bottom" if above else "top", fontsize=6.5, color=color,
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )  # fmt: skip


def part_names(drawing: Figure) -> None:
    """Move names of rows further from their points, line by line, until none of a panel covers another or a point. To be called last."""
    drawing.draw_without_rendering()
    sign = SIGN_PT * drawing.dpi / 72
    for axes in drawing.axes:
        names = [name for name in axes.texts if isinstance(name, Annotation)]
        points = [axes.transData.transform(name.xy) for name in names]
        placed = [Bbox.from_bounds(x - sign, y - sign, 2 * sign, 2 * sign) for x, y in points]
        for name in names:
            x, away = name.xyann
            while any(map((box := name.get_window_extent()).overlaps, placed)):
                away += math.copysign(LINE_PT, away)
                name.xyann = (x, away)
            placed.append(box)


def share_axis(axes: Axes, data: pd.DataFrame) -> None:
    """Give a panel's axis of shares its name, room for the names of rows and, where the shares lie far apart, a logarithm."""
    axes.set_xlabel("trainable share of all parameters (%)")
    axes.margins(x=0.15, y=0.12)
    tuned = data.loc[data["trainable_share"] > 0, "trainable_share"]
    if tuned.max() > WIDE * tuned.min():
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter("{x:g}")
