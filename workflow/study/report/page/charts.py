"""Figures as places and texts for inline SVG, whose points tell their numbers when pointed at. Draws nothing: a template does.

Two kinds: dots on a line per row, and courses over the steps of a tuning. Places are in the units of the drawing's own box.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from study.tables.accuracy import LARGE, decimals

WIDTH = 740
LEFT, RIGHT, TOP, BOTTOM = 336, 16, 18, 34
VALUES = LEFT - 12
"""Where the column of numbers ends, right of the names."""
NAMES = LEFT - 72
LINE = 22
COURSE_HEIGHT, COURSE_LEFT = 190, 52
MARGIN = 0.03
"""The share of an axis that stays free at either end."""
LABEL_LENGTH, LABEL_END = 44, 12
"""In characters: a longer name loses some before its end, in which a pruner's mode is."""
LEAST_SHARE = 0.7
"""A logarithmic axis begins no lower than this share of the least value: an interval over few seeds may reach to nothing."""
TICKS = 5
DECADES = 6.0
"""A logarithmic axis that spans so many times its lowest value has the round values of every power of ten."""


@dataclass(frozen=True)
class Dot:
    """A value on its line, with the ends of its interval; `beyond` where it lies outside the axis."""

    label: str
    number: str
    x: float
    y: float
    low: float | None
    high: float | None
    ours: bool
    beyond: bool
    says: str


@dataclass(frozen=True)
class Dots:
    """A line for each row of one measure, and marks across all of them."""

    title: str
    unit: str
    height: float
    dots: Sequence[Dot]
    ticks: Sequence[tuple[float, str]]
    across: Sequence[tuple[float, str]]


@dataclass(frozen=True)
class Entry:
    """What a line of dots shows: its name, value, half an interval where there is one, whether it is PAT's and pruned, and what is said."""

    name: str
    value: float
    half: float | None
    ours: bool
    pruned: bool
    says: str


def dots(title: str, unit: str, entries: Sequence[Entry], across: Mapping[str, float], *, edge: float = math.inf) -> Dots:
    """Return a chart of dots; `across` are values that a line through all of them marks.

    With an `edge` the axis is logarithmic, and what lies beyond the edge stands there with a mark.
    """
    logarithmic = math.isfinite(edge)
    values = [entry.value for entry in entries]
    ends = [end for entry in entries if entry.value <= edge for end in (entry.value - (entry.half or 0), entry.value + (entry.half or 0))]
    least = LEAST_SHARE * min(values) if logarithmic else 0.0
    low, high = max(least, min([*ends, *across.values()])), min(edge, max([*ends, *across.values()]))
    free = MARGIN * (WIDTH - RIGHT - LEFT)
    axis = _Axis(low, high, LEFT + free, WIDTH - RIGHT - free, logarithmic=logarithmic)
    drawn = [
        Dot(
            shortened(entry.name),
            number_of(entry.value),
            axis.place(entry.value),
            TOP + LINE * (line + 0.5),
            None if entry.half is None else axis.place(entry.value - entry.half),
            None if entry.half is None else axis.place(entry.value + entry.half),
            entry.ours,
            entry.value > edge,
            f"{entry.name}: {entry.says}",
        )
        for line, entry in enumerate(entries)
    ]
    marks = [(axis.place(value), f"{name} {value:.4g}") for name, value in across.items()]
    return Dots(title, unit, TOP + LINE * len(entries) + BOTTOM, drawn, axis.ticks(), marks)


@dataclass(frozen=True)
class Course:
    """A figure over the steps of a tuning: its line, its points with what they say, both axes, and the milestone."""

    title: str
    line: str
    points: Sequence[tuple[float, float, str]]
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]
    mark: tuple[float, str] | None


def course(title: str, history: Sequence[Mapping[str, Any]], key: str, marks: Mapping[str, int | None]) -> Course | None:
    """Return the course of one figure of the log; None where fewer than two entries have it.

    The first of the steps in `marks` that is known is marked by its name.
    """
    known = [(int(entry["step"]), float(entry[key])) for entry in history if entry.get(key) is not None and math.isfinite(entry[key])]
    if len(known) < 2:
        return None
    steps, values = [step for step, _ in known], [value for _, value in known]
    across = _Axis(0, steps[-1], COURSE_LEFT, WIDTH - RIGHT)
    up = _Axis(min(values), max(values), COURSE_HEIGHT - BOTTOM, TOP)
    points = [(across.place(step), up.place(value), f"step {step}: {value:.4g}") for step, value in known]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in points)
    mark = next(((across.place(at), f"{name} at step {at}") for name, at in marks.items() if at is not None and at <= steps[-1]), None)
    return Course(title, line, points, across.ticks(), up.ticks(), mark)


@dataclass(frozen=True)
class _Axis:
    """From values to places between two ends of the drawing."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """Return where a value stands; one outside stands at the end."""
        low, high, at = (math.log(max(it, 1e-30)) if self.logarithmic else it for it in (self.low, self.high, value))
        share = 0.5 if high == low else (at - low) / (high - low)
        return round(self.start + min(1.0, max(0.0, share)) * (self.end - self.start), 1)

    def ticks(self) -> list[tuple[float, str]]:
        """Return round values on the axis with their places."""
        if self.high == self.low:
            return [(self.place(self.low), f"{self.low:.4g}")]
        placed = [(self.place(value), f"{value:.6g}") for value in self._round_values()]
        apart = [placed[0]] if placed else []
        for one in placed[1:]:  # a logarithmic axis crowds the larger ones
            if abs(one[0] - apart[-1][0]) >= 2 * RIGHT:
                apart.append(one)
        return apart

    def _round_values(self) -> list[float]:
        if self.logarithmic and self.high >= DECADES * self.low > 0:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            return [value for power in powers for factor in (1, 2, 5) if self.low <= (value := factor * 10.0**power) <= self.high]
        step = _round_step((self.high - self.low) / TICKS)
        return [number * step for number in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]


def shortened(name: str) -> str:
    """Return a name as it has room beside its line."""
    return name if len(name) <= LABEL_LENGTH else f"{name[: LABEL_LENGTH - LABEL_END - 1].rstrip()}…{name[-LABEL_END:]}"


def number_of(value: float) -> str:
    """Return a value as it stands beside its line."""
    return f"{value:,.0f}" if 1000 <= abs(value) < LARGE else decimals(value, 1)


def _round_step(wish: float) -> float:
    size = 10.0 ** math.floor(math.log10(wish))
    return next(factor * size for factor in (1, 2, 5, 10) if factor * size >= wish)
