"""Bounds of ratios as messages tell them: rounded inwards, so that what is said to be possible is."""

from __future__ import annotations

import math

DIGITS = 3
"""Of a ratio; one of a percentage."""


def just_above(bound: float, digits: int = DIGITS) -> float:
    """Return the first number of so many digits above a bound."""
    unit = 10.0**digits
    return (math.floor(bound * unit) + 1) / unit


def just_below(bound: float, digits: int = DIGITS) -> float:
    """Return the last number of so many digits below a bound."""
    unit = 10.0**digits
    return (math.ceil(bound * unit) - 1) / unit
