"""The identity loss: how far the factors of all operators are from orthogonality, in few, large products.

Factor by factor, a model of billions of parameters would spend hundreds of products on it in each step, all too small to fill a GPU.
Axes: N factors, R operator rank, D hidden channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

Distance = Literal["mean-square", "norm"]
FACTORS_AT_ONCE = 16
"""Enough to fill a GPU; their copies are let go before the next ones are made."""


def identity_loss(factors: Sequence[Tensor], distance: Distance) -> Tensor:
    """Return the distance of A·Aᵀ from I summed over factors A (R, D), all of one shape (docs/method.md, equation 11).

    It is the mean of the square over the R × R entries, or the Frobenius norm, on the first one's device and at least in fp32. The
    gradient of a factor that is orthogonal already is 0.
    """
    by_device: dict[torch.device, list[Tensor]] = {}
    for factor in factors:
        by_device.setdefault(factor.device, []).append(factor)
    parts: list[Tensor] = [_SummedDistance.apply(distance, *mine) for mine in by_device.values()]  # type: ignore[no-untyped-call]
    return torch.stack([part.to(factors[0].device) for part in parts]).sum()


class _SummedDistance(torch.autograd.Function):
    """The gradient, a multiple of (A·Aᵀ − I)·A, by hand: one product instead of two, and no copy of a factor is kept for it."""

    @staticmethod
    def forward(ctx: Any, distance: Distance, *factors: Tensor) -> Tensor:
        gap_NRR = torch.cat([_gaps(stacked_nRD) for stacked_nRD in _stacks(factors)])
        norm_N = torch.linalg.matrix_norm(gap_NRR)
        ctx.distance = distance
        ctx.save_for_backward(gap_NRR, norm_N, *factors)
        entries = gap_NRR[0].numel()
        total: Tensor = norm_N.sum() if distance == "norm" else norm_N.square().sum() / entries
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gap_NRR, norm_N, *factors = ctx.saved_tensors
        if ctx.distance == "norm":
            weight_N = torch.where(norm_N > 0, 2.0 * grad / norm_N, 0.0)
        else:
            weight_N = (4.0 * grad / gap_NRR[0].numel()).expand_as(norm_N)
        weighted_NRR = weight_N[:, None, None] * gap_NRR
        gradients: list[Tensor] = []
        for stacked_nRD, part_nRR in zip(_stacks(factors), weighted_NRR.split(FACTORS_AT_ONCE), strict=True):
            gradients += torch.bmm(part_nRR, stacked_nRD).to(factors[0].dtype)
        return None, *gradients


def _stacks(factors: Sequence[Tensor]) -> Iterator[Tensor]:
    wide = torch.promote_types(factors[0].dtype, torch.float32)
    for start in range(0, len(factors), FACTORS_AT_ONCE):
        yield torch.stack(list(factors[start : start + FACTORS_AT_ONCE])).to(wide)


def _gaps(stacked_nRD: Tensor) -> Tensor:
    gram_nRR = torch.bmm(stacked_nRD, stacked_nRD.mT)
    gram_nRR.diagonal(dim1=-2, dim2=-1).sub_(1.0)
    return gram_nRR
