"""A figure's panels with a line per method: their order and names, and PAT's points distinguished from those of other methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from study.figures.style import BLACK, BLUE, as_written

LINE_IN = 0.2
"""Height of a method's line in inches."""


def names_in_order(data: pd.DataFrame) -> dict[str, str]:
    """Return each method's name, in the order of the tables: what is not pruned comes first.

    A method that the first ratio lacks stands behind the one that it follows at a later ratio.
    """
    names = {method: str(name) for method, name in zip(data["method"], data["name"], strict=True)}
    order: list[str] = []
    for _, methods in data.groupby("ratio")["method"]:
        place = len(order)
        for method in dict.fromkeys(methods):
            if method not in order:
                order.insert(place, method)
            place = order.index(method) + 1
    return {method: names[method] for method in order}


def name_lines(axes: Axes, names: dict[str, str]) -> None:
    """Give an axis its methods' names, the first one on top."""
    axes.set_yticks(range(len(names)), [as_written(name) for name in names.values()])
    axes.set_ylim(len(names) - 0.5, -0.5)


def draw_points(axes: Axes, data: pd.DataFrame, order: Sequence[str], column: str, factor: float = 1.0) -> None:
    """Draw each method's `column` with the interval `ci95` on its line, both times `factor`; PAT's with a colour and sign of their own."""
    for label, mine, color, marker in (
        ("PAT", data[data["mode"] == "PAT"], BLUE, "o"),
        ("other methods", data[data["mode"] != "PAT"], BLACK, "s"),
    ):
        places = [order.index(method) for method in mine["method"]]
        errors = factor * mine["ci95"].astype(float).fillna(0.0)
        style: dict[str, Any] = {"color": color, "markersize": 4.5, "capsize": 2.5, "elinewidth": 1, "label": label}
        axes.errorbar(factor * mine[column], places, xerr=errors, fmt=marker, **style)
