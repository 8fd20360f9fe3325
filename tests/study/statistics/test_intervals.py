"""Intervals against numbers worked by hand from the tables of Student's t and the normal distribution."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.statistics.intervals import binomial_error, estimate, mean_standard_error, paired_difference

accuracies = st.lists(st.floats(0, 1), min_size=2, max_size=8)


def test_three_seeds_give_t_with_two_degrees_of_freedom() -> None:
    # mean 0.7, s = 0.1, t(0.975, 2) = 4.30265: 4.30265 × 0.1 / √3 = 0.24841
    it = estimate([0.6, 0.7, 0.8], [None, None, None])
    assert it.mean == pytest.approx(0.7)
    assert it.half_width == pytest.approx(0.24841, abs=1e-5)
    assert it.source == "seeds"


def test_one_seed_gives_the_binomial_interval_over_items() -> None:
    # 0.64 of 100 items: √(0.64 × 0.36 / 100) = 0.048; 1.95996 × 0.048 = 0.09408
    it = estimate([0.64], [0.048])
    assert it.half_width == pytest.approx(0.09408, abs=1e-5)
    assert it.source == "items"


def test_one_seed_without_a_standard_error_has_no_interval() -> None:
    it = estimate([0.64], [None])
    assert it.half_width is None
    assert it.position(0.25) is None


def test_standard_error_of_the_mean_of_two_tasks() -> None:
    # √(0.03² + 0.04²) / 2 = 0.025
    assert mean_standard_error([0.03, 0.04]) == pytest.approx(0.025)
    assert mean_standard_error([0.03, None]) is None


def test_no_right_item_is_not_taken_as_certainty() -> None:
    # 0 of 6: (0 + 2) / (6 + 4) = 0.2, √(0.2 × 0.8 / 10) = 0.12649
    assert binomial_error(0.0, 0.0, 6) == pytest.approx(0.12649, abs=1e-5)
    assert binomial_error(1.0, 0.0, 6) == pytest.approx(0.12649, abs=1e-5)
    assert binomial_error(0.5, 0.2, 6) == 0.2
    assert binomial_error(0.5, None, 6) is None


def test_agreeing_seeds_do_not_make_few_items_significant() -> None:
    """Seeds share their items: three models that all answer A on 100 items are three times the same luck."""
    it = estimate([0.30, 0.30, 0.30], [0.0458, 0.0458, 0.0458])
    assert it.half_width == 0
    assert it.position(0.25) == "same"


def test_positions_above_and_below_chance() -> None:
    assert estimate([0.60], [0.05]).position(0.25) == "above"
    assert estimate([0.05], [0.02]).position(0.25) == "below"


def test_difference_uses_the_seeds_both_have() -> None:
    # seeds 0 and 1: differences 0.1 and 0.3, mean 0.2, s = 0.14142, t(0.975, 1) = 12.7062: 12.7062 × 0.14142 / √2 = 1.27062
    ours = {0: (0.6, 0.03), 1: (0.9, 0.03), 2: (0.9, 0.03)}
    theirs = {0: (0.5, 0.04), 1: (0.6, 0.04), 3: (0.1, 0.04)}
    it = paired_difference(ours, theirs)
    assert it is not None
    assert it.mean == pytest.approx(0.2)
    assert it.over_seeds == pytest.approx(1.27062, abs=1e-4)
    assert it.over_items == pytest.approx(1.95996 * 0.05, abs=1e-5)
    assert paired_difference({0: (0.6, None)}, {1: (0.6, None)}) is None


@given(accuracies)
def test_interval_does_not_depend_on_the_order_of_seeds(values: list[float]) -> None:
    forward, backward = estimate(values, [None] * len(values)), estimate(values[::-1], [None] * len(values))
    assert forward.mean == backward.mean
    assert forward.half_width == backward.half_width


@given(accuracies, st.floats(-0.5, 0.5))
def test_interval_moves_with_the_values_and_keeps_its_width(values: list[float], shift: float) -> None:
    here = estimate(values, [None] * len(values))
    there = estimate([value + shift for value in values], [None] * len(values))
    assert there.mean == pytest.approx(here.mean + shift)
    assert here.half_width is not None and there.half_width is not None
    assert math.isclose(there.half_width, here.half_width, abs_tol=1e-9)
