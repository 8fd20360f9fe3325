"""Draws every method's perplexity of held-out text from the cells' JSONs: a line of panels per model and text, a column per ratio.

Models too small for the tasks answer them at the level of guessing; it is on text that their methods differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from pat.errors import UserError
from pat.io.artefacts import write_text
from study.figures.lines import LINE_IN, draw_points, name_lines, names_in_order
from study.figures.style import GREY, below, figure, save
from study.results.cells import models_of, read_cells, rows_of
from study.results.grid import Grid, texts_of
from study.tables.accuracy import percent
from study.tables.layouts import csv_text

FARTHEST = 4.0
"""A panel ends at so many times its best pruned model's perplexity; what lies beyond is an arrow at its edge with its number."""
MARGIN = 0.93
TICKS = (1.0, 1.2, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)
FEW_TICKS = (1, 2, 5)
WIDE = 5.0
"""From this factor between the ends of an axis on, labels at all ticks would run into each other."""


def points(grid: Grid) -> pd.DataFrame:
    """Return the figure's data: one row per model, text, panel and method; the unpruned methods stand in every panel."""
    rows = rows_of(grid.cells)
    panels = sorted({row.ratio for row in rows if row.ratio}) or [0.0]
    records = [
        {
            "model": model, "text": text, "panel": panel, "method": row.method, "name": row.name, "mode": row.mode, "ratio": row.ratio,
            "perplexity": value.mean, "ci95": value.over_seeds, "seeds": value.seeds,
        }
        for model in models_of(grid.cells)
        for text in texts_of(grid.cells)
        for panel in panels
        for row in rows
        if row.ratio in (0.0, panel) and (value := grid.perplexity(model, row, text, "token")) is not None
    ]  # fmt: skip
    return pd.DataFrame(records)


def draw(data: pd.DataFrame, drawing: Figure, title: str) -> None:
    """Fill `drawing` with a line of panels per model and text; a line across marks what was not pruned."""
    lines = sorted(set(zip(data["model"], data["text"], strict=True)))
    ratios = sorted(data["panel"].unique())
    names = names_in_order(data)
    panels = drawing.subplots(len(lines), len(ratios), sharey=True, squeeze=False)
    for line, (model, text) in zip(panels, lines, strict=True):
        for axes, ratio in zip(line, ratios, strict=True):
            _panel(axes, data[(data["model"] == model) & (data["text"] == text) & (data["panel"] == ratio)], list(names))
            axes.set_title(f"{text}, {percent(ratio)} removed")
        line[0].set_ylabel(model)
        name_lines(line[0], names)
    for axes in panels[-1]:
        axes.set_xlabel("perplexity per token")
    below(drawing, panels.flat)
    drawing.suptitle(title, fontsize=9, x=0.01, ha="left")


def _panel(axes: Axes, data: pd.DataFrame, order: Sequence[str]) -> None:
    whole, pruned = data[data["ratio"] == 0], data[data["ratio"] != 0]
    if not whole.empty:
        axes.axvline(float(whole["perplexity"].min()), color=GREY, linewidth=0.8, label="nothing removed")
    shown = pruned if not pruned.empty else data
    edge = FARTHEST * float(shown["perplexity"].min())
    near = data[data["perplexity"] <= edge]
    draw_points(axes, near, order, "perplexity")
    for method, value in data.loc[data["perplexity"] > edge, ["method", "perplexity"]].itertuples(index=False):
        at = (0.98, order.index(method))
        axes.annotate(f"{value:.4g} →", at, xycoords=("axes fraction", "data"), ha="right", va="center", fontsize=7)
    axes.set_xscale("log")
    left, right = MARGIN * float(data["perplexity"].min()), float(near["perplexity"].max()) / MARGIN
    axes.set_xlim(left, right)  # a bar may reach further
    axes.xaxis.set_major_locator(LogLocator(subs=TICKS if right < WIDE * left else FEW_TICKS))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", which="minor", bottom=False)
    axes.grid(axis="both", color="#DDDDDD", linewidth=0.6)


def write_perplexity(paths: Sequence[Path], out: Path) -> int:
    """Write perplexity.png, .pdf and .csv into `out`; returns the number of points. Raises UserError on broken cells, or without texts."""
    cells = read_cells(paths)
    if not texts_of(cells):
        raise UserError("no cell has the perplexity of a text; name texts under data.text, or leave the figure `perplexity` out")
    data = points(Grid(cells, ""))
    lines = data.groupby(["model", "text"]).ngroups
    width = 2.0 + 2.4 * data["panel"].nunique()
    height = 1.0 + lines * (0.6 + LINE_IN * data["method"].nunique())
    with figure(max(width, 4.6), height) as drawing:
        title = f"{cells[0].experiment}: perplexity of held-out text, lower is better"
        draw(data, drawing, f"{title}\nbars: 95 % interval over seeds, where there are several")
        save(drawing, out, "perplexity")
    write_text(out / "perplexity.csv", csv_text(data, digits=6))
    return len(data)
