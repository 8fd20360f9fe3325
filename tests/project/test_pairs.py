"""Cases that are fewer than all still hold what they say: every pair of values, or every value."""

from __future__ import annotations

from itertools import product

import pytest

from tests.kit.pairs import all_pairs, in_turn


@pytest.mark.parametrize("sizes", [(6, 4, 4), (12, 4, 2), (7, 2, 2), (3, 3, 3), (2, 5, 2)])
def test_every_two_values_of_different_axes_meet(sizes: tuple[int, int, int]) -> None:
    axes = [[f"{axis}{number}" for number in range(size)] for axis, size in zip("abc", sizes, strict=True)]
    cases = all_pairs(*axes)
    assert len(cases) == len(set(cases)) == sizes[0] * sizes[1]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert {(case[one], case[other]) for case in cases} == set(product(axes[one], axes[other]))


def test_values_that_take_turns_all_come() -> None:
    assert in_turn("abcd", "xyz") == [("a", "x"), ("b", "y"), ("c", "z"), ("d", "x")]


def test_axes_of_which_something_would_be_left_out_are_refused() -> None:
    with pytest.raises(AssertionError, match="never come with"):
        all_pairs("abcd", "xy", "123")
    with pytest.raises(AssertionError, match="left out"):
        in_turn("ab", "123")
