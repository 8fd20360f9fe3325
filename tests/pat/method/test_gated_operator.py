"""The gated operator as one function: values and gradients are those of torch's own functions, and y is all that it keeps."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product

import pytest
import torch
from torch import Tensor

from pat.method.gated_operator import gated
from pat.method.hsm import HybridSparsificationModule, LowRankOperator, Operator, PinnedOperator, ReleaseOperator
from pat.method.mask import UnifiedMask
from pat.models.kept_activations import kept_bytes
from pat.settings.config import PatConfig

HIDDEN, RANK, ROWS, TOKENS = 12, 3, 2, 5


def composed(y: Tensor, gate_D: Tensor, down_RD: Tensor, up_DR: Tensor) -> Tensor:
    return (y + (y @ down_RD.T) @ up_DR.T) * gate_D


def arguments(wanted: tuple[bool, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((ROWS, TOKENS, HIDDEN), (HIDDEN,), (RANK, HIDDEN), (HIDDEN, RANK))
    made = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    return [each.requires_grad_(want) for each, want in zip(made, wanted, strict=True)]


@pytest.mark.parametrize("wanted", [flags for flags in product((True, False), repeat=4) if any(flags)])
def test_values_and_gradients_are_those_of_the_formula(wanted: tuple[bool, ...]) -> None:
    outer = torch.randn(ROWS, TOKENS, HIDDEN, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = []
    for function in (gated, composed):
        given = arguments(wanted)
        z = function(*given)
        found.append([z, *torch.autograd.grad(z, [each for each in given if each.requires_grad], outer)])
    assert len(found[0]) == 1 + sum(wanted)
    assert all(torch.allclose(one, other, rtol=1e-12, atol=1e-12) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("make", [LowRankOperator, PinnedOperator, ReleaseOperator])
def test_of_each_token_it_keeps_y_alone_and_nothing_where_nothing_is_trained(make: Callable[[int, int], Operator]) -> None:
    torch.manual_seed(0)
    learned = PatConfig(pruning_ratio=0.5, align=1, total_steps=100, hio_rank=RANK)
    fixed = PatConfig(pruning_ratio=0.5, align=1, total_steps=100, hio_rank=RANK, mask="leading", closing="at-once")
    for trained, config in ((True, learned), (False, fixed)):
        module = HybridSparsificationModule(make(HIDDEN, RANK)).requires_grad_(trained)
        mask = UnifiedMask(HIDDEN, 6, config, None if trained else torch.arange(HIDDEN))
        inputs = [torch.randn(1, tokens, HIDDEN, requires_grad=True) for tokens in (10, 30)]
        few, many = (kept_bytes(partial(module, y, mask), (*module.parameters(), *mask.parameters())) for y in inputs)
        assert many - few == (20 * HIDDEN * 4 if trained else 0)


def test_in_half_precision_the_gates_gradient_is_summed_in_fp32() -> None:
    y = torch.ones(1, 4096, 2, dtype=torch.bfloat16)
    gate_D = torch.ones(2, requires_grad=True)
    zeros = torch.zeros(1, 2), torch.zeros(2, 1)
    (gradient_D,) = torch.autograd.grad(gated(y, gate_D, *zeros).sum(), gate_D)
    assert gradient_D.tolist() == [4096.0, 4096.0]
