"""Draws every method's perplexity of held-out text from the cells' JSONs: a panel per model and text, a row per method, a colour per ratio.

Models too small for the tasks answer them at the level of guessing; it is on text that their methods differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from pat.io.artefacts import write_text
from study.figures.heading import marked_heading
from study.figures.lines import name_lines
from study.figures.style import BLACK, CHARACTER_IN, GREY, below, figure, look_of, save
from study.results.cells import models_of, rows_of
from study.results.grid import Grid, text_grid, texts_of
from study.tables.accuracy import percent
from study.tables.layouts import csv_text

FARTHEST = 4.0
"""A panel ends at so many times the best perplexity of its largest ratio; what lies beyond is a number behind its edge."""
MARGIN = 0.93
TICKS = (1.0, 1.2, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)
FEW_TICKS = (1, 2, 5)
DECADES = (1,)
WITHOUT_DECIMALS, WITH_POWER = 100, 100_000
"""From these on a number behind the edge is told without decimals, and as a power of ten."""
WIDE, VERY_WIDE = 4.0, 300.0
"""From these factors between the ends of an axis on, labels at all ticks, or at few a decade, would run into each other."""
ROW_IN, NAMES_IN, PANEL_IN, LEAST_IN = 0.17, 2.3, 2.15, 5.5
"""Height of a method's row, and widths of the names, of a text's panel and of the least figure: as wide as a page of text shows it."""
LONG_NAME = 52
"""Characters of a name that the panels make room for; for more the figure grows."""
APART, WITHIN = 0.22, 0.8
"""How far apart a row's ratios stand, in rows: intervals of two of them may cover each other's points. All stay within so much of a row."""


def points(grid: Grid) -> pd.DataFrame:
    """Return the figure's data: one row per model, text, method and ratio, the methods as they are drawn from top to bottom."""
    data = pd.DataFrame(
        {
            "model": model, "text": text, "method": row.method, "name": row.name, "mode": row.mode, "ratio": row.ratio,
            "perplexity": value.mean, "ci95": value.over_seeds, "seeds": value.seeds,
        }
        for model in models_of(grid.cells)
        for text in texts_of(grid.cells)
        for row in rows_of(grid.cells)
        if (value := grid.perplexity(model, row, text, "token")) is not None
    )  # fmt: skip
    order = best_first(data)
    return data.sort_values(["model", "text", "method", "ratio"], key=lambda them: them.map(order.index) if them.name == "method" else them)


def best_first(data: pd.DataFrame) -> list[str]:
    """Return the methods, those that remove nothing before the others, each the earlier the lower its perplexity is.

    That is the geometric mean, over models, texts and ratios, of how many times the lowest of its ratio it is: so methods that ran at
    other ratios, or on other texts, have each their place.
    """
    best = data.groupby(["model", "text", "ratio"])["perplexity"].transform("min")
    behind = data.assign(behind=np.log(data["perplexity"] / best)).groupby("method", sort=False)["behind"].mean()
    pruned = data.groupby("method", sort=False)["ratio"].max() > 0
    return sorted(behind.index, key=lambda method: (pruned[method], behind[method]))


def draw(data: pd.DataFrame, drawing: Figure, title: str) -> None:
    """Fill `drawing` with a line of panels per model, a panel per text; a line across marks what was not pruned."""
    models, texts = sorted(data["model"].unique()), sorted(data["text"].unique())
    names = {method: str(name) for method, name in zip(data["method"], data["name"], strict=True)}
    order = best_first(data)
    panels = drawing.subplots(len(models), len(texts), sharey=True, squeeze=False)
    for line, model in zip(panels, models, strict=True):
        for axes, text in zip(line, texts, strict=True):
            _panel(axes, data[(data["model"] == model) & (data["text"] == text)], order, _ratios(data))
            axes.set_title(text)
        line[0].set_ylabel(model)
        name_lines(line[0], {method: names[method] for method in order})
        of_pat = set(data.loc[data["mode"] == "PAT", "method"])
        for label, method in zip(line[0].get_yticklabels(), order, strict=True):
            label.set_fontweight("bold" if method in of_pat else "normal")
    for axes in panels[-1]:
        axes.set_xlabel("perplexity per token")
    below(drawing, panels.flat)
    drawing.suptitle(title, fontsize=9, x=0.01, ha="left")


def _ratios(data: pd.DataFrame) -> list[float]:
    return sorted(ratio for ratio in data["ratio"].unique() if ratio)


def _panel(axes: Axes, data: pd.DataFrame, order: Sequence[str], ratios: Sequence[float]) -> None:
    if data.empty:  # a model that was scored on other texts
        axes.set_xticks([])
        return
    whole, pruned = data[data["ratio"] == 0], data[data["ratio"] != 0]
    if not whole.empty:
        axes.axvline(float(whole["perplexity"].min()), color=GREY, linewidth=0.8, label="best with nothing removed")
    of_the_largest = (pruned if not pruned.empty else data).groupby("ratio")["perplexity"].min()
    edge = FARTHEST * float(of_the_largest.iloc[-1])
    near, beyond = data[data["perplexity"] <= edge], data[data["perplexity"] > edge]
    _draw_points(axes, near[near["ratio"] == 0], order, 0.0, "nothing removed", (BLACK, "D"))
    for place, ratio in enumerate(ratios):
        shift = min(APART, WITHIN / len(ratios)) * (place - (len(ratios) - 1) / 2)
        _draw_points(axes, near[near["ratio"] == ratio], order, shift, f"{percent(ratio)} removed", look_of(place))
    for method, values in beyond.groupby("method")["perplexity"]:
        told = ", ".join(f"{value:.0f}" if WITHOUT_DECIMALS <= value < WITH_POWER else f"{value:.3g}" for value in values)
        at = (1.01, order.index(str(method)))
        axes.annotate(f"→ {told}", at, xycoords=("axes fraction", "data"), ha="left", va="center", fontsize=6, annotation_clip=False)
    _scale(axes, MARGIN * float(data["perplexity"].min()), float(near["perplexity"].max()) / MARGIN)


def _draw_points(axes: Axes, data: pd.DataFrame, order: Sequence[str], shift: float, label: str, look: tuple[str, str]) -> None:
    if data.empty:
        return  # a legend names what is drawn
    colour, sign = look
    places = [order.index(method) + shift for method in data["method"]]
    errors = data["ci95"].astype(float).fillna(0.0)
    axes.errorbar(data["perplexity"], places, xerr=errors, fmt=sign, color=colour, label=label, markersize=3.5, capsize=1.5, elinewidth=0.8)


def _scale(axes: Axes, left: float, right: float) -> None:
    """Give a panel its ends, beyond which a bar may reach, and few ticks."""
    axes.set_xscale("log")
    axes.set_xlim(left, right)
    axes.xaxis.set_major_locator(LogLocator(subs=TICKS if right < WIDE * left else FEW_TICKS if right < VERY_WIDE * left else DECADES))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", which="minor", bottom=False)
    axes.grid(axis="both", color="#DDDDDD", linewidth=0.6)


def write_perplexity(paths: Sequence[Path], out: Path, *, of_cells: int | None = None) -> int:
    """Write perplexity.png, .pdf and .csv into `out`; returns the number of points. Raises UserError on broken cells, or without texts."""
    grid = text_grid(paths, "perplexity")
    data = points(grid)
    longer = max(0, data["name"].str.len().max() - LONG_NAME)
    width = NAMES_IN + CHARACTER_IN * longer + PANEL_IN * data["text"].nunique()
    height = 1.0 + data["model"].nunique() * (0.5 + ROW_IN * data["method"].nunique())
    with figure(max(width, LEAST_IN), height) as drawing:
        title = marked_heading(grid.cells, "perplexity of held-out text, lower is better", of_cells)
        draw(data, drawing, f"{title}\nPAT's rows in bold; bars: 95 % interval over seeds, where there are several")
        save(drawing, out, "perplexity")
    write_text(out / "perplexity.csv", csv_text(data, digits=6))
    return len(data)
