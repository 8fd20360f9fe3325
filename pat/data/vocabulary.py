"""Tokens held against the vocabulary of a model, which has an embedding for each id from 0 on.

Axes: N tokens of rows laid out flat, R rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def first_strange(values_N: NDArray[Any], lengths_R: NDArray[Any], count: int, besides: int | None = None) -> tuple[int, int] | None:
    """Return the number of a row, from 0, and its first value that is neither from 0 to `count` - 1 nor `besides`; None where none is."""
    if not len(values_N) or (values_N.min() >= 0 and values_N.max() < count):
        return None
    strange_N = (values_N < 0) | (values_N >= count)
    if besides is not None:
        strange_N &= values_N != besides
    if not strange_N.any():
        return None
    place = int(strange_N.argmax())
    return int(np.searchsorted(lengths_R.cumsum(), place, side="right")), int(values_N[place])
