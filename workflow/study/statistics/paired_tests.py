"""Paired statistics between two rows that answered the same items or ran with the same seeds. Knows nothing of files or tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from study.statistics.intervals import LEVEL, ratio_error, student_quantile

RESAMPLES = 10_000
RANDOM_SEED = 0


@dataclass(frozen=True)
class Interval:
    """A 95 % interval."""

    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half of its length."""
        return (self.high - self.low) / 2

    @property
    def side(self) -> int:
        """1 where all of it lies above zero, −1 where all lies below, 0 where it covers zero."""
        return int(self.low > 0) - int(self.high < 0)


@dataclass(frozen=True)
class McNemar:
    """On how many items either of two rows did better, and the two-sided exact p-value of rows that are equally good."""

    ours_better: int
    theirs_better: int
    p_value: float

    @property
    def side(self) -> int:
        """1 where ours did better on more items, −1 where theirs did, 0 where as many."""
        return (self.ours_better > self.theirs_better) - (self.ours_better < self.theirs_better)


def paired_bootstrap(differences: Sequence[NDArray[np.float64]]) -> Interval:
    """Return the percentile interval of the plain mean over tasks of the mean difference over items.

    `differences` holds one array per task, one value per item; items are drawn with replacement within each task, always with the same
    random numbers. Source: Efron and Tibshirani, 1993, chapters 8 and 13.
    """
    random = np.random.default_rng(RANDOM_SEED)
    total = np.zeros(RESAMPLES)
    for task in differences:
        # How often each value comes up among n draws is multinomial: the same bootstrap, without drawing item by item.
        values, counts = np.unique(task, return_counts=True)
        total += random.multinomial(len(task), counts / len(task), size=RESAMPLES) @ values / len(task)
    low, high = np.quantile(total / len(differences), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))


def mcnemar(differences: NDArray[np.float64]) -> McNemar:
    """Return McNemar's exact test, given ours minus theirs of every item: right is 1, wrong is 0, seeds averaged.

    Over several seeds it is the exact sign test, in which an item counts once, so that seeds do not pass for items. Source: McNemar, 1947.
    """
    ours, theirs = int((differences > 0).sum()), int((differences < 0).sum())
    p_value = float(stats.binomtest(ours, ours + theirs).pvalue) if ours + theirs else 1.0
    return McNemar(ours, theirs, p_value)


def paired_t(differences: Sequence[float]) -> float | None:
    """Return the two-sided p-value of a mean difference of zero (Student's paired t), None for fewer than two differences."""
    if len(differences) < 2:
        return None
    mean, spread = fmean(differences), stdev(differences)
    if spread == 0:
        return 1.0 if mean == 0 else 0.0
    return 2 * float(special.stdtr(len(differences) - 1, -abs(mean) / spread * len(differences) ** 0.5))


@dataclass(frozen=True)
class PieceTest:
    """The 95 % interval of a difference a token, and the two-sided p-value of none."""

    interval: Interval
    p_value: float


def over_pieces(differences: NDArray[np.float64], tokens: NDArray[np.int_], neighbours: int = 0) -> PieceTest | None:
    """Return the test of the summed difference over the summed tokens, given both of every piece of a text; None for fewer than two.

    The error is that of a ratio of sums (`ratio_error`), in which so many neighbours of each piece count as related to it.
    """
    error = ratio_error(differences, tokens, neighbours)
    if error is None:
        return None
    number, mean = int((tokens > 0).sum()), float(differences.sum() / tokens.sum())
    width = student_quantile(number) * error
    if error == 0:
        return PieceTest(Interval(mean, mean), 1.0 if mean == 0 else 0.0)
    return PieceTest(Interval(mean - width, mean + width), 2 * float(special.stdtr(number - 1, -abs(mean) / error)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values corrected for being several, in their order. Source: Holm, 1979."""
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected
