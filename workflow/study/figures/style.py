"""How every figure looks and how it is saved: colours and signs the colour-blind can tell apart, the same bytes for the same data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from matplotlib import style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pat.io.storage import writing
from pat.io.temporaries import file_for
from study.commands.figure_mark import METADATA

BLACK, ORANGE, SKY, GREEN, BLUE, VERMILION, PURPLE = "#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7"
"""Okabe and Ito's palette, without its yellow, which print does not show."""
GREY = "#767676"
SERIES = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, BLACK)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
HANDLE_IN, CHARACTER_IN, LEGEND_LINE_IN = 0.55, 0.058, 0.155
"""What a legend's entry takes beside its words, a character of those, and a line of entries."""
LEGEND_LINES = 3
"""So many lines of a legend are counted in a figure's height; for more of them it grows."""
DODGED = 0.4
"""The share of the gap between two places on an axis over which the methods at one place are spread, so that none hides another."""
STYLES: dict[str, Any] = {
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "lines.linewidth": 1.4,
    "lines.markersize": 5,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "pdf.fonttype": 42,
    "savefig.dpi": 200,
}
SeriesT = TypeVar("SeriesT")


def look_of(position: int) -> tuple[str, str]:
    """Return a series' colour and sign by its place. Colours come back after seven, each time with other signs."""
    return SERIES[position % len(SERIES)], MARKERS[(position + position // len(SERIES)) % len(MARKERS)]


def few_at_a_time(series: Sequence[SeriesT]) -> list[Sequence[SeriesT]]:
    """Return the series in groups, a panel each: no more to a group than there are colours, and the groups about equally large."""
    groups = max(1, math.ceil(len(series) / len(SERIES)))
    size = max(1, math.ceil(len(series) / groups))
    return [series[size * group : size * (group + 1)] for group in range(groups)]


def shared_out(series: Sequence[str], ratios: pd.Series) -> tuple[list[str], list[Sequence[str]]]:
    """Return the series that prune nothing, which every panel shows, and the others in groups; `ratios` has the largest ratio of each."""
    whole = [name for name in series if not ratios[name]]
    return whole, few_at_a_time([name for name in series if ratios[name]])


def part_of(title: str, number: int, parts: int) -> str:
    """Return the title of one of several panels that show a part of the series each, counted from 0."""
    return title if parts == 1 else f"{title}, {number + 1} of {parts}"


def as_written(name: str) -> str:
    """Return a name that a user has chosen so that it is drawn letter by letter.

    Between two dollars matplotlib reads formulas, and of a legend it leaves out what begins with an underscore.
    """
    escaped = name.replace("$", r"\$")
    return f" {escaped}" if escaped.startswith("_") else escaped


@contextmanager
def figure(width_in: float, height_in: float) -> Iterator[Figure]:
    """Yield an empty figure in the house style; it belongs to no global state and needs no closing."""
    with style.context(STYLES):
        yield Figure(figsize=(width_in, height_in), layout="constrained")


def grid_lines(axes: Axes) -> None:
    """Draw faint horizontal lines to read values by."""
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)


def from_zero(panels: Iterable[Axes]) -> None:
    """Let finished panels of accuracies end at zero below, where a wide interval reaches further. What is drawn later moves no limit."""
    for axes in panels:
        if axes.get_ylim()[0] < 0:
            axes.set_ylim(bottom=0)


def below(drawing: Figure, panels: Iterable[Axes], last: str = "guessing") -> None:
    """Put one legend for all panels below them, each entry once, and make room for it; `last` names the entry that ends it."""
    entries: dict[str, Artist] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    labels = sorted(entries, key=lambda label: label == last)
    column_in = HANDLE_IN + CHARACTER_IN * max(map(len, labels))
    columns = max(1, min(len(labels), 3, int(drawing.get_figwidth() / column_in)))
    drawing.set_figheight(drawing.get_figheight() + LEGEND_LINE_IN * max(0, math.ceil(len(labels) / columns) - LEGEND_LINES))
    drawing.legend([entries[label] for label in labels], labels, loc="outside lower center", ncols=columns)


def shifts(places: Iterable[float], count: int, apart: float | None = None) -> list[float]:
    """Return how far each of `count` methods stands from a place on the axis: spread over a part of the least gap between places.

    `apart` is the most that two of them are set apart.
    """
    ordered = sorted(set(places))
    gap = min((right - left for left, right in pairwise(ordered)), default=0.0)
    step = DODGED * gap / max(count, 1)
    step = step if apart is None else min(step, apart)
    return [step * (position - (count - 1) / 2) for position in range(count)]


def save(drawing: Figure, out: Path, name: str) -> None:
    """Write `name`.png and `name`.pdf into `out`, each in one rename and without dates."""
    for kind, metadata in METADATA.items():
        path = out / f"{name}.{kind}"
        with writing(path):
            out.mkdir(parents=True, exist_ok=True)
            with file_for(path) as temporary:
                drawing.savefig(temporary, format=kind, metadata=metadata)
                temporary.replace(path)
        drawing.set_layout_engine(None)  # what the first has laid out, which is half of the work, the second takes as it is
