"""z = M ⊙ (D·y) with D = I + U·V of low rank, as one function that keeps y alone for its gradient.

Composed of torch's own functions it keeps y, the product V·y and D·y: of all that a layer of a small model keeps, a seventh, for what two
products of low rank give again. Where neither gate nor operator is trained it keeps nothing.
Axes: D hidden channels, R operator rank, N tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def gated(y: Tensor, gate_D: Tensor, down_RD: Tensor, up_DR: Tensor) -> Tensor:
    """Return gate ⊙ (y + U·V·y) on the last axis; the factors are cast to y's dtype, a gate of a wider one widens the result."""
    result: Tensor = _Gated.apply(y, gate_D, down_RD, up_DR)  # type: ignore[no-untyped-call]
    return result


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, y: Tensor, gate_D: Tensor, down_RD: Tensor, up_DR: Tensor) -> Tensor:
        context.dtype = y.dtype
        context.save_for_backward(y if any(context.needs_input_grad[1:]) else None, gate_D, down_RD, up_DR)
        low = functional.linear(y, down_RD.to(y.dtype))
        return _turned(y, low, up_DR) * gate_D

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        y, gate_D, down_RD, up_DR = context.saved_tensors
        needs_y, needs_gate, needs_down, needs_up = context.needs_input_grad
        inner = (outer * gate_D).to(context.dtype)
        back = inner @ up_DR.to(inner.dtype)
        of_y = inner + back @ down_RD.to(inner.dtype) if needs_y else None
        of_gate = of_down = of_up = None
        if needs_gate or needs_up:
            low = functional.linear(y, down_RD.to(y.dtype))
            of_up = (_rows(inner).T @ _rows(low)).to(up_DR.dtype) if needs_up else None
            if needs_gate:  # a sum over all tokens, in fp32 at least
                product_ND = _rows(outer * _turned(y, low, up_DR))
                of_gate = product_ND.sum(0, dtype=torch.promote_types(product_ND.dtype, torch.float32)).to(gate_D.dtype)
        if needs_down:
            of_down = (_rows(back).T @ _rows(y)).to(down_RD.dtype)
        return of_y, of_gate, of_down, of_up


def _turned(y: Tensor, low: Tensor, up_DR: Tensor) -> Tensor:
    """Return D·y for low = V·y, in y's dtype, whatever autocast makes of the product."""
    return y + functional.linear(low, up_DR.to(y.dtype)).to(y.dtype)


def _rows(wide: Tensor) -> Tensor:
    return wide.reshape(-1, wide.shape[-1])
