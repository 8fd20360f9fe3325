"""Widths against the numbers the method page settles, and their laws."""

from __future__ import annotations

import math
import re
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pat.errors import SettingError
from pat.models.width import target_width, width_step


@pytest.mark.parametrize(
    ("ratio", "align", "width"), [(0.2, 64, 3264), (0.25, 64, 3072), (0.3, 64, 2880), (0.3, 128, 2816), (0.0, 64, 4096)]
)
def test_llama_2_7b(ratio: float, align: int, width: int) -> None:
    assert target_width(4096, 32, ratio, align) == width


@given(st.integers(1, 16), st.integers(4, 64), st.floats(0.01, 0.99))
def test_laws(heads: int, per_head: int, ratio: float) -> None:
    hidden = heads * per_head
    step = width_step(hidden, heads, "auto")
    try:
        width = target_width(hidden, heads, ratio, "auto")
    except SettingError:
        nearest = step * round((1 - ratio) * hidden / step)
        assert nearest == 0 or nearest + step > hidden
        return
    assert 0 < width < hidden
    assert width % heads == 0 and width % step == 0
    assert abs(width - (1 - ratio) * hidden) <= step / 2 + 1e-9


@pytest.mark.parametrize(("ratio", "said"), [(1e-9, "all of it stays"), (0.9999999, "nothing stays"), (0.015, "all of it stays")])
def test_a_ratio_that_rounds_to_all_or_nothing_is_refused_with_those_that_do_not(ratio: float, said: str) -> None:
    with pytest.raises(SettingError, match=f"{said}; ratios from 0.032 to 0.968 are possible"):
        target_width(64, 4, ratio)
    assert [target_width(64, 4, possible) for possible in (0.032, 0.968)] == [60, 4]


@pytest.mark.parametrize(("hidden", "heads", "align"), [(48, 4, 8), (576, 9, "auto"), (960, 15, "auto"), (2048, 32, 128), (100, 10, 7)])
def test_the_ratios_that_are_told_are_possible(hidden: int, heads: int, align: int | Literal["auto"]) -> None:
    with pytest.raises(SettingError) as refused:
        target_width(hidden, heads, 0.9999, align)
    for told in re.findall(r"from ([\d.]+) to ([\d.]+) are", str(refused.value))[0]:
        assert 0 < target_width(hidden, heads, float(told), align) < hidden


def test_auto_takes_64_on_large_models_and_less_on_small_ones() -> None:
    assert width_step(4096, 32, "auto") == 64
    assert width_step(96, 4, "auto") == 4
    assert width_step(48, 6, 1) == math.lcm(6, 1)


@pytest.mark.parametrize(("ratio", "align"), [(1.0, 1), (-0.1, 1), (0.5, 4096)])
def test_what_cannot_be_is_refused(ratio: float, align: int) -> None:
    with pytest.raises(ValueError, match=r"ratio|align"):
        target_width(4096, 32, ratio, align)
