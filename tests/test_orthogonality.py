"""The identity loss of many factors at once against the one factor by factor, and its gradient against finite differences."""

from __future__ import annotations

import pytest
import torch

from pat.config import PatConfig
from pat.hsm import LowRankOperator
from pat.orthogonality import FACTORS_AT_ONCE, summed_distance
from pat.sparsifier import Sparsifier


@pytest.mark.parametrize("count", [1, FACTORS_AT_ONCE, FACTORS_AT_ONCE + 3])
def test_it_is_the_sum_of_the_operators_own_losses_and_so_is_its_gradient(count: int) -> None:
    torch.manual_seed(0)
    operators = [LowRankOperator(12, 3) for _ in range(count)]
    for operator in operators:
        with torch.no_grad():
            operator.down.add_(0.3 * torch.randn(3, 12))
            operator.up.add_(0.3 * torch.randn(12, 3))
    expected = torch.stack([operator.identity_loss() for operator in operators]).sum()
    downs, ups = [operator.down for operator in operators], [operator.up for operator in operators]
    found = summed_distance(downs, columns=False) + summed_distance(ups, columns=True)
    assert torch.allclose(found, expected)
    factors = [*downs, *ups]
    for own, other in zip(torch.autograd.grad(3 * found, factors), torch.autograd.grad(3 * expected, factors), strict=True):
        assert torch.allclose(own, other, atol=1e-6)


@pytest.mark.parametrize("columns", [False, True])
def test_gradients_match_finite_differences(columns: bool) -> None:
    torch.manual_seed(0)
    factors = [torch.randn((7, 3) if columns else (3, 7), dtype=torch.float64, requires_grad=True) for _ in range(3)]
    assert torch.autograd.gradcheck(lambda *given: summed_distance(given, columns=columns), factors)


def test_orthogonal_factors_have_no_distance_and_no_gradient() -> None:
    factor = torch.eye(2, 5, requires_grad=True)
    distance = summed_distance([factor], columns=False)
    distance.backward()
    assert distance.item() == 0.0 and factor.grad is not None and factor.grad.abs().max() == 0


def test_mixed_precision_leaves_a_models_identity_loss_in_fp32() -> None:
    """At the start the factors are orthogonal to rounding; in bf16 the products alone would bring 0.01 a factor."""
    torch.manual_seed(0)
    sparsifier = Sparsifier(256, 192, ["one", "two"], tied=False, config=PatConfig(pruning_ratio=0.25, hio_rank=16))
    with torch.autocast("cpu", torch.bfloat16):
        loss = sparsifier.identity_loss()
    assert loss.dtype == torch.float32 and 0.0 <= loss.item() < 1e-4


@pytest.mark.parametrize("tied", [False, True])
def test_a_model_on_one_gpu_gets_the_loss_that_it_gets_elsewhere(tied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    sparsifier = Sparsifier(32, 24, ["one", "two", "three"], tied=tied, config=PatConfig(pruning_ratio=0.25, hio_rank=4))
    with torch.no_grad():
        for parameter in sparsifier.hsms.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    expected = sparsifier.identity_loss()
    monkeypatch.setattr(Sparsifier, "_on_one_gpu", lambda _self: True)
    assert torch.allclose(sparsifier.identity_loss(), expected)
