"""Paired statistics against formulas by hand, and the bootstrap against a truth that is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from study.statistics.intervals import ratio_error, related_neighbours
from study.statistics.paired_tests import Interval, holm, mcnemar, over_pieces, paired_bootstrap, paired_t


@pytest.mark.lengthy
def test_the_bootstraps_interval_covers_the_true_difference_as_often_as_it_says() -> None:
    """Two tasks of unlike size; the truth is the plain mean of their differences, 0.1 and −0.02, so 0.04."""
    random = np.random.default_rng(7)
    covered = 0
    for _ in range(300):
        tasks = [random.choice([1.0, 0.0, -1.0], size=size, p=shares) for size, shares in ((80, (0.3, 0.5, 0.2)), (200, (0.1, 0.78, 0.12)))]
        interval = paired_bootstrap(tasks)
        covered += interval.low <= 0.04 <= interval.high
    assert 0.91 <= covered / 300 <= 0.98


def test_the_bootstraps_width_is_that_of_the_closed_form() -> None:
    """Table 1 takes its interval over items from the standard error, the bootstrap's closed form for a mean of right and wrong."""
    right = [np.repeat([1.0, 0.0], [60, 40]), np.repeat([1.0, 0.0], [150, 50])]
    expected = 1.96 * math.hypot(math.sqrt(0.24 / 100), math.sqrt(0.1875 / 200)) / 2
    interval = paired_bootstrap(right)
    assert (interval.high - interval.low) / 2 == pytest.approx(expected, rel=0.03)


def test_the_bootstrap_always_gives_the_same() -> None:
    task = np.array([1.0, -1.0, 0.0, 1.0, 0.5])
    assert paired_bootstrap([task]) == paired_bootstrap([task[::-1]])
    assert paired_bootstrap([np.zeros(5)]) == Interval(0.0, 0.0)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_mcnemar_is_the_binomial_test_of_the_items_that_differ(answers: list[tuple[bool, bool]]) -> None:
    ours, theirs = (np.array(column) for column in zip(*answers, strict=True))
    found, swapped = mcnemar(ours * 1.0 - theirs), mcnemar(theirs * 1.0 - ours)
    one, other = sum(a and not b for a, b in answers), sum(b and not a for a, b in answers)
    tail = sum(math.comb(one + other, count) for count in range(min(one, other) + 1)) / 2 ** (one + other)
    assert (found.ours_better, found.theirs_better) == (one, other)
    assert found.p_value == pytest.approx(min(1.0, 2 * tail))
    assert found.p_value == pytest.approx(swapped.p_value)


def test_holm_by_hand() -> None:
    # sorted 0.01, 0.02, 0.03, 0.2: times 4, 3, 2, 1, never falling
    assert holm([0.03, 0.01, 0.2, 0.02]) == pytest.approx([0.06, 0.04, 0.2, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_paired_t_is_that_of_scipy() -> None:
    values = [0.3, 0.1, -0.05, 0.2]
    assert paired_t(values) == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    assert paired_t([0.0, 0.0]) == 1.0 and paired_t([0.1, 0.1]) == 0.0 and paired_t([0.1]) is None


def test_documents_of_equal_length_are_a_paired_t_test() -> None:
    differences = np.array([0.3, 0.1, -0.05, 0.2])
    found = over_pieces(differences, np.full(4, 10))
    by_scipy = stats.ttest_1samp(differences / 10, 0)
    assert found is not None
    assert found.p_value == pytest.approx(by_scipy.pvalue)
    assert (found.interval.low, found.interval.high) == pytest.approx(tuple(by_scipy.confidence_interval()))


def test_long_documents_count_for_their_tokens() -> None:
    found = over_pieces(np.array([3.0, 0.0]), np.array([30, 10]))
    assert found is not None
    assert (found.interval.low + found.interval.high) / 2 == pytest.approx(3 / 40)
    assert over_pieces(np.array([1.0]), np.array([5])) is None
    assert over_pieces(np.zeros(3), np.array([5, 6, 7])) is not None


def related_series(random: np.random.Generator, number: int, kinship: float = 0.6) -> np.ndarray:
    """Return differences each of which is like the one before it, of mean 0."""
    values = random.normal(size=number)
    for place in range(1, number):
        values[place] = kinship * values[place - 1] + (1 - kinship**2) ** 0.5 * values[place]
    return values


def test_the_interval_over_related_windows_covers_the_truth_and_that_over_independent_ones_does_not() -> None:
    random, number, runs = np.random.default_rng(0), 600, 400
    tokens, series = np.full(number, 10), [related_series(random, number) for _ in range(runs)]

    def covered(neighbours: int) -> float:
        tests = [over_pieces(values, tokens, neighbours) for values in series]
        return sum(test is not None and test.interval.side == 0 for test in tests) / runs

    assert covered(related_neighbours(number)) > 0.88
    assert covered(0) < 0.75


def test_an_error_over_related_windows_is_newey_and_wests() -> None:
    values, sizes = np.array([1.0, 3.0, 2.0, 5.0, 4.0]), np.array([10, 20, 10, 20, 20])
    residuals = [value - 15 / 80 * size for value, size in zip(values, sizes, strict=True)]
    spread = sum(
        (1 - abs(one - other) / 3) * residuals[one] * residuals[other] for one in range(5) for other in range(5) if abs(one - other) < 3
    )
    assert ratio_error(values, sizes, 2) == pytest.approx((spread * 5 / 4) ** 0.5 / 80)


@pytest.mark.parametrize(("number", "neighbours"), [(1, 0), (2, 1), (100, 4), (670, 6), (10_000, 11)])
def test_how_many_neighbours_count_as_related(number: int, neighbours: int) -> None:
    assert related_neighbours(number) == neighbours
