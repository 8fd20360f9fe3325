"""How far many factors of one shape are from orthogonality, summed: the identity loss of a whole model in few, large products.

Factor by factor, a model of billions of parameters would spend hundreds of products too small to fill a GPU on it, each step.
Axes: N factors, R operator rank, D hidden channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

FACTORS_AT_ONCE = 16
"""Enough to fill a GPU; their copies are let go before the next ones are made."""


def summed_distance(factors: Sequence[Tensor], *, columns: bool) -> Tensor:
    """Return Σ ‖A·Aᵀ − I‖ over factors (R, D), or with `columns` Σ ‖Aᵀ·A − I‖ over factors (D, R); Frobenius norms.

    The gradient of a factor that is orthogonal already is 0.
    """
    distance: Tensor = _SummedDistance.apply(columns, *factors)  # type: ignore[no-untyped-call]
    return distance


class _SummedDistance(torch.autograd.Function):
    """The gradient, 2·(A·Aᵀ − I)·A over the norm, by hand: one product instead of two, and no copy of a factor is kept for it."""

    @staticmethod
    def forward(ctx: Any, columns: bool, *factors: Tensor) -> Tensor:
        gap_NRR = torch.cat([_gaps(stacked, columns) for stacked in _stacks(factors)])
        norm_N = torch.linalg.matrix_norm(gap_NRR)
        ctx.columns = columns
        ctx.save_for_backward(gap_NRR, norm_N, *factors)
        total: Tensor = norm_N.sum()
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gap_NRR, norm_N, *factors = ctx.saved_tensors
        weight_N = torch.where(norm_N > 0, 2.0 * grad / norm_N, 0.0)
        weighted_NRR = weight_N[:, None, None] * gap_NRR
        gradients: list[Tensor] = []
        for stacked, part_nRR in zip(_stacks(factors), weighted_NRR.split(FACTORS_AT_ONCE), strict=True):
            gradients += torch.bmm(stacked, part_nRR) if ctx.columns else torch.bmm(part_nRR, stacked)
        return None, *gradients


def _stacks(factors: Sequence[Tensor]) -> Iterator[Tensor]:
    for start in range(0, len(factors), FACTORS_AT_ONCE):
        yield torch.stack(list(factors[start : start + FACTORS_AT_ONCE]))


def _gaps(stacked: Tensor, columns: bool) -> Tensor:
    gram_nRR = torch.bmm(stacked.mT, stacked) if columns else torch.bmm(stacked, stacked.mT)
    gram_nRR.diagonal(dim1=-2, dim2=-1).sub_(1.0)
    return gram_nRR
