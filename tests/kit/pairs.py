"""Cases that hold every pair of the values of three axes, and not every triple: the third axis's values take turns."""

from __future__ import annotations

from collections.abc import Collection
from itertools import cycle
from typing import Any


def all_pairs(first: Collection[Any], second: Collection[Any], third: Collection[Any]) -> list[tuple[Any, Any, Any]]:
    """Return cases in which each two values of different axes meet; the third axis is the shortest."""
    assert len(third) <= min(len(first), len(second)), "some values of the third axis would never come with some of another"
    values = list(third)
    return [(one, other, values[(row + column) % len(values)]) for row, one in enumerate(first) for column, other in enumerate(second)]


def in_turn(first: Collection[Any], second: Collection[Any]) -> list[tuple[Any, Any]]:
    """Return one case for each value of the first axis; those of the second, which has no more, take turns."""
    assert len(second) <= len(first), "some values of the second axis would be left out"
    return list(zip(first, cycle(second)))
