"""Draws figure 4 of the paper by text: perplexity against the share of trainable parameters, a line of panels per model and ratio.

On models too small for the tasks all rows answer at the level of guessing; it is on text that their sizes differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from pat.io.artefacts import write_text
from study.figures.heading import marked_heading
from study.figures.shares import Part, draw_series, of_row, panels_of, part_names, parts_of, series_of, share_axis, shares
from study.figures.style import below, figure, save
from study.results.cells import Row
from study.results.grid import Grid, text_grid, texts_of
from study.tables.accuracy import percent
from study.tables.layouts import csv_text

ROOM = 0.2
"""A panel reaches beyond its largest and its smallest perplexity by so much of what lies between them, for names and bars."""
LEAST_ROOM = 1.25
"""And at least by this factor."""
NEAR, FAR = 2.0, 6.0
"""Below the first factor between a panel's ends its ticks are evenly spaced; from the second on it has few of them a decade."""
FEW, MANY, EVENLY = (1, 2, 5), (1, 1.5, 2, 3, 5, 7), 5


def points(grid: Grid) -> pd.DataFrame:
    """Return the figure's data: one row per model, ratio, text and table row; shares are of all parameters, the added ones too, in 0..1."""
    records = [_point(grid, model, panel, row, text) for model, panel, row in panels_of(grid) for text in texts_of(grid.cells)]
    return pd.DataFrame([record for record in records if record])


def _point(grid: Grid, model: str, panel: float, row: Row, text: str) -> dict[str, object]:
    value, share = grid.perplexity(model, row, text, "token"), shares(grid, model, row)
    if value is None or share is None:
        return {}
    return {**of_row(model, panel, row), **share, "text": text, "perplexity": value.mean, "ci95": value.over_seeds, "seeds": value.seeds}


def lines_of(data: pd.DataFrame) -> list[tuple[Part, float]]:
    """Return the figure's lines of panels: every model's series, in several parts where they are many, at every ratio that these have."""
    ratios = sorted(data["panel"].unique())
    there = data[(data["ratio"] > 0) | (len(ratios) == 1)].groupby(["model", "panel"])["series"].agg(set)
    return [(part, ratio) for part in parts_of(data) for ratio in ratios if there.get((part.model, ratio), set()) & set(part.positions)]


def draw(data: pd.DataFrame, lines: Sequence[tuple[Part, float]], drawing: Figure, title: str) -> None:
    """Fill `drawing` with a line of panels per model and ratio, or several where the series are many, and a column per text.

    A method's rows of several sizes are one series, joined by a line. Each panel has the series that prune nothing.
    """
    texts = sorted(data["text"].unique())
    panels = drawing.subplots(len(lines), len(texts), sharex=True, squeeze=False)
    for line, (part, ratio) in zip(panels, lines, strict=True):
        for axes, text in zip(line, texts, strict=True):
            here = data[(data["model"] == part.model) & (data["panel"] == ratio) & (data["text"] == text)]
            draw_series(axes, here, part.positions, "perplexity")
            _scale(axes, here["perplexity"])
            axes.set_title(text)
        line[0].set_ylabel(f"{part.title}, {percent(ratio)} removed\nperplexity per token (log scale)")
    for axes in panels[-1]:
        share_axis(axes, data)
    below(drawing, panels.flat)
    drawing.suptitle(title, fontsize=9, x=0.01, ha="left")
    part_names(drawing)


def _scale(axes: Axes, values: pd.Series) -> None:
    """Give a panel of perplexities its ends and ticks; one without any, of a model that was scored on other texts, has none."""
    if values.empty:
        axes.set_yticks([])
        return
    low, high = float(values.min()), float(values.max())
    room = max((high / low) ** ROOM, LEAST_ROOM)
    bottom, top = low / room, high * room
    axes.set_yscale("log")
    axes.set_ylim(bottom, top)
    of_decades = LogLocator(subs=FEW if top > FAR * bottom else MANY)
    axes.yaxis.set_major_locator(MaxNLocator(EVENLY) if top < NEAR * bottom else of_decades)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="y", which="minor", left=False)


def write_trainable_perplexity(paths: Sequence[Path], out: Path, *, of_cells: int | None = None) -> int:
    """Write trainable_perplexity.png, .pdf and .csv into `out`; returns the number of points.

    Raises UserError on broken cells, or without texts.
    """
    grid = text_grid(paths, "trainable_perplexity")
    data = points(grid)
    data = data.assign(series=series_of(data))
    lines = lines_of(data)
    with figure(max(1.2 + 2.8 * data["text"].nunique(), 4.6), 1.1 + 2.4 * len(lines)) as drawing:
        title = marked_heading(grid.cells, "perplexity of held-out text, lower is better", of_cells)
        draw(data, lines, drawing, f"{title}\nbars: 95 % interval over seeds, where there are several")
        save(drawing, out, "trainable_perplexity")
    write_text(out / "trainable_perplexity.csv", csv_text(data, digits=6))
    return len(data)
