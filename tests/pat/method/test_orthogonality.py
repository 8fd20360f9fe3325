"""The identity loss of many factors at once against its formula factor by factor, and its gradient against finite differences."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pat.method.orthogonality import FACTORS_AT_ONCE, Distance, identity_loss
from pat.method.sparsifier import Sparsifier
from pat.settings.config import PatConfig

DISTANCES: tuple[Distance, ...] = ("mean-square", "norm")


def by_formula(factors: list[Tensor], distance: Distance) -> Tensor:
    gaps = [factor.float() @ factor.float().T - torch.eye(len(factor)) for factor in factors]
    return torch.stack([gap.norm() if distance == "norm" else gap.square().mean() for gap in gaps]).sum()


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("count", [1, FACTORS_AT_ONCE, FACTORS_AT_ONCE + 3])
def test_it_is_the_sum_of_the_factors_own_and_so_is_its_gradient(count: int, distance: Distance) -> None:
    torch.manual_seed(0)
    factors = [torch.randn(3, 12, requires_grad=True) for _ in range(count)]
    found, expected = identity_loss(factors, distance), by_formula(factors, distance)
    assert torch.allclose(found, expected)
    for own, other in zip(torch.autograd.grad(3 * found, factors), torch.autograd.grad(3 * expected, factors), strict=True):
        assert torch.allclose(own, other, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("distance", DISTANCES)
def test_gradients_match_finite_differences(distance: Distance) -> None:
    torch.manual_seed(0)
    factors = [torch.randn(3, 7, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    assert torch.autograd.gradcheck(lambda *given: identity_loss(given, distance), factors)


@pytest.mark.parametrize("distance", DISTANCES)
def test_orthogonal_factors_have_no_distance_and_no_gradient(distance: Distance) -> None:
    factor = torch.eye(2, 5, requires_grad=True)
    loss = identity_loss([factor], distance)
    loss.backward()
    assert loss.item() == 0.0 and factor.grad is not None and factor.grad.abs().max() == 0


@pytest.mark.parametrize("distance", DISTANCES)
def test_factors_in_bf16_are_measured_in_fp32_and_get_gradients_of_their_own(distance: Distance) -> None:
    torch.manual_seed(0)
    factor = torch.randn(3, 12).bfloat16().requires_grad_()
    loss = identity_loss([factor], distance)
    loss.backward()
    assert loss.dtype == torch.float32 and torch.allclose(loss, by_formula([factor], distance))
    assert factor.grad is not None and factor.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("operators", ["free", "pinned"])
def test_mixed_precision_leaves_a_models_identity_loss_in_fp32(operators: Any) -> None:
    """At the start the factors are orthogonal to rounding; in bf16 the products alone would bring 0.01 a factor."""
    torch.manual_seed(0)
    config = PatConfig(pruning_ratio=0.25, hio_rank=16, operators=operators)
    sparsifier = Sparsifier(256, 192, ["one", "two"], tied=False, config=config)
    with torch.autocast("cpu", torch.bfloat16):
        loss = sparsifier.identity_loss()
    assert loss.dtype == torch.float32 and 0.0 <= loss.item() < 1e-4


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    ("choices", "distance"), [({}, "mean-square"), ({"operators": "pinned"}, "norm"), ({"variant": "release"}, "mean-square")]
)
def test_a_model_holds_what_its_form_holds(choices: dict[str, Any], distance: Distance, tied: bool) -> None:
    """Free operators L0; pinned ones L1 as well; the release L0 of the embedding's and the last layer's two HSMs. A tied embedding has none."""
    torch.manual_seed(0)
    config = PatConfig(pruning_ratio=0.25, hio_rank=4, **choices)
    sparsifier = Sparsifier(32, 24, ["zero", "one", "two", "three", "four"], tied=tied, config=config)
    with torch.no_grad():
        for parameter in sparsifier.hsms.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    operators: list[Any] = [hsm.operator for hsm in sparsifier.by_write().values()]
    counted = [operators[0], *operators[-2:]] if "variant" in choices else operators
    if tied:
        counted = counted[1:]
    factors = [operator.down for operator in counted]
    if "operators" in choices:
        factors += [operator.up.T for operator in counted]
    assert torch.allclose(sparsifier.identity_loss(), by_formula(factors, distance))


@pytest.mark.parametrize("hio_rank", [0, "dense"])
def test_without_factors_there_is_nothing_to_hold(hio_rank: Any) -> None:
    config = PatConfig(pruning_ratio=0.25, hio_rank=hio_rank)
    assert Sparsifier(32, 24, ["one", "two"], tied=False, config=config).identity_loss().item() == 0.0
