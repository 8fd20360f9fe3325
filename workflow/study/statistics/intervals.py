"""Means with 95 % intervals: over seeds (Student t), and over items where there is one seed. Knows nothing of files or tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

LEVEL = 0.95
Position = Literal["above", "same", "below"]
Measured = tuple[float, float | None]
"""A value and its standard error over items."""


@dataclass(frozen=True)
class Estimate:
    """A mean with the half widths of its 95 % intervals; None where there is nothing to compute one from.

    `over_seeds` says how far the mean of other seeds would lie, on the same items; `over_items` how far the same models' would lie on
    other items, or other text, of the same kind. Seeds share their items, so averaging them does not shrink the second one.
    """

    mean: float
    seeds: int
    over_seeds: float | None
    over_items: float | None

    @property
    def half_width(self) -> float | None:
        """What a table prints behind ±: over seeds, with one seed over items."""
        return self.over_items if self.over_seeds is None else self.over_seeds

    @property
    def source(self) -> str:
        """What `half_width` comes from: seeds, items or nothing."""
        if self.over_seeds is not None:
            return "seeds"
        return "" if self.over_items is None else "items"

    def position(self, reference: float) -> Position | None:
        """Say where the mean lies from `reference`: "same" if either interval covers it, None without any interval."""
        widths = [width for width in (self.over_seeds, self.over_items) if width is not None]
        if not widths:
            return None
        if abs(self.mean - reference) <= max(widths):
            return "same"
        return "above" if self.mean > reference else "below"


def estimate(values: Sequence[float], standard_errors: Sequence[float | None]) -> Estimate:
    """Return the mean of one value a seed; `standard_errors` are each value's over its items."""
    known = [error for error in standard_errors if error is not None]
    over_items = normal_half_width(fmean(known)) if len(known) == len(values) else None
    return Estimate(fmean(values), len(values), student_half_width(values), over_items)


def ratio_error(values: NDArray[np.float64], sizes: NDArray[np.int_], neighbours: int = 0) -> float | None:
    """Return the standard error of the sum of some pieces' values over that of their sizes, linearised; None for fewer than two pieces.

    Pieces without size are none. Others are taken for independent, or, in their order, for related to so many `neighbours` before and
    behind them. Source: Cochran, 1977, section 6.4; Newey and West, 1987.
    """
    values, sizes = values[sizes > 0], sizes[sizes > 0]
    number = len(values)
    if number < 2:
        return None
    residuals = values - values.sum() / sizes.sum() * sizes
    spread = float(np.square(residuals).sum())
    for distance in range(1, neighbours + 1):
        weight = 1 - distance / (neighbours + 1)
        spread += 2 * weight * float((residuals[distance:] * residuals[:-distance]).sum())
    return math.sqrt(max(spread, 0.0) * number / (number - 1)) / float(sizes.sum())


def related_neighbours(number: int) -> int:
    """Return how many neighbours of each of so many pieces in a row count as related: ⌊4·(n/100)^(2/9)⌋. Source: Newey and West, 1994."""
    return min(int(4 * (number / 100) ** (2 / 9)), max(number - 1, 0))


def student_half_width(values: Sequence[float]) -> float | None:
    """Return t · s / √n for the two-sided 95 % interval of the mean, None for fewer than two values."""
    if len(values) < 2:
        return None
    return student_quantile(len(values)) * stdev(values) / math.sqrt(len(values))


def student_quantile(number: int) -> float:
    """Return how many standard errors a 95 % interval of the mean of `number` values reaches to either side."""
    return float(special.stdtrit(number - 1, (1 + LEVEL) / 2))


def normal_half_width(standard_error: float) -> float:
    """Return the half width of the two-sided 95 % interval around a value with this standard error."""
    return float(special.ndtri((1 + LEVEL) / 2)) * standard_error


def binomial_error(value: float, standard_error: float | None, items: int) -> float | None:
    """Return the standard error, but never zero: where all or no items are right, that of two more right and two more wrong.

    The plain binomial error of 0 of 6 items is 0, which claims certainty where there is hardly any knowledge (Agresti and Coull, 1998).
    Elsewhere it is what a bootstrap over the items tends to.
    """
    if standard_error != 0:
        return standard_error
    share = (value * items + 2) / (items + 4)
    return math.sqrt(share * (1 - share) / (items + 4))


def mean_standard_error(standard_errors: Sequence[float | None]) -> float | None:
    """Return the standard error of a plain mean of independent values, None where one of theirs is unknown."""
    known = [error for error in standard_errors if error is not None]
    return math.hypot(*known) / len(known) if known and len(known) == len(standard_errors) else None


def paired_difference(ours: Mapping[int, Measured], theirs: Mapping[int, Measured]) -> Estimate | None:
    """Return the mean over common seeds of ours minus theirs, each given by seed.

    Both answered the same items; taking their item errors as independent makes that interval too wide rather than too narrow. Where the
    items' outcomes are known, paired_tests has the right one.
    """
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return None
    errors = [(ours[seed][1], theirs[seed][1]) for seed in seeds]
    joint = [None if one is None or other is None else math.hypot(one, other) for one, other in errors]
    return estimate([ours[seed][0] - theirs[seed][0] for seed in seeds], joint)
