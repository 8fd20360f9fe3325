"""Operators: identity at the start, folding equals applying, gradients by finite differences, the losses by hand."""

from __future__ import annotations

import pytest
import torch

from pat.config import PatConfig
from pat.hsm import DenseOperator, HybridSparsificationModule, IdentityOperator, LowRankOperator, Operator, ReleaseOperator
from pat.mask import UnifiedMask

HIDDEN = 12


def shaken(operator: Operator) -> Operator:
    """Move every parameter away from its start, in float64."""
    operator.double()
    with torch.no_grad():
        for parameter in operator.parameters():
            parameter.add_(torch.randn(parameter.shape, dtype=torch.float64) * 0.3)
    return operator


def matrix_by_hand(operator: Operator) -> torch.Tensor:
    """D, written from the paper's formula and the operator's parameters."""
    eye = torch.eye(HIDDEN, dtype=torch.float64)
    if isinstance(operator, LowRankOperator):
        return eye + operator.up @ torch.diag(operator.scale) @ operator.down
    if isinstance(operator, ReleaseOperator):
        return eye + operator.up @ operator.down
    return operator.matrix if isinstance(operator, DenseOperator) else eye


OPERATORS = [lambda: LowRankOperator(HIDDEN, 3), lambda: ReleaseOperator(HIDDEN, 3), lambda: DenseOperator(HIDDEN), IdentityOperator]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("make", OPERATORS)
def test_every_operator_starts_as_the_identity(make: object) -> None:
    operator = make()  # type: ignore[operator]
    y = torch.randn(2, 5, HIDDEN)
    assert torch.equal(operator(y), y)


@pytest.mark.parametrize("make", OPERATORS)
def test_applying_and_folding_are_the_matrix(make: object) -> None:
    operator = shaken(make())  # type: ignore[operator]
    matrix = matrix_by_hand(operator)
    y, weight = torch.randn(4, HIDDEN, dtype=torch.float64), torch.randn(HIDDEN, 7, dtype=torch.float64)
    assert torch.allclose(operator(y), y @ matrix.T, atol=1e-12)
    assert torch.allclose(operator.fold(weight), matrix @ weight, atol=1e-12)


def test_low_rank_has_the_papers_number_of_parameters() -> None:
    assert sum(p.numel() for p in LowRankOperator(HIDDEN, 3).parameters()) == 2 * HIDDEN * 3 + 3


@pytest.mark.parametrize("make", [lambda: LowRankOperator(HIDDEN, 3), lambda: ReleaseOperator(HIDDEN, 3)])
def test_gradients_match_finite_differences(make: object) -> None:
    operator = shaken(make())  # type: ignore[operator]
    y = torch.randn(3, HIDDEN, dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in operator.named_parameters()]

    def applied(y: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = torch.func.functional_call(operator, dict(zip(names, values, strict=True)), (y,))
        return result

    assert torch.autograd.gradcheck(applied, (y, *[p.detach().requires_grad_() for p in operator.parameters()]))


def test_identity_loss_by_hand() -> None:
    operator = LowRankOperator(4, 2)
    assert operator.identity_loss().item() == pytest.approx(0.0, abs=1e-5)
    with torch.no_grad():
        operator.down.copy_(torch.tensor([[2.0, 0, 0, 0], [0, 1, 0, 0]]))  # L0·L0ᵀ − I = diag(3, 0)
        operator.up.copy_(torch.tensor([[1.0, 1], [0, 1], [0, 0], [0, 0]]))  # L1ᵀ·L1 − I = [[0, 1], [1, 1]]
    assert operator.identity_loss().item() == pytest.approx(3.0 + 3.0**0.5)
    release = ReleaseOperator(4, 2)
    with torch.no_grad():
        release.down.copy_(operator.down)
    assert release.identity_loss().item() == pytest.approx(9.0 / 4)


def test_identity_loss_has_a_finite_gradient_where_it_is_zero() -> None:
    operator = LowRankOperator(4, 2)
    with torch.no_grad():
        operator.down.copy_(torch.eye(2, 4))
        operator.up.copy_(torch.eye(4, 2))
    operator.identity_loss().backward()
    assert operator.down.grad is not None and torch.isfinite(operator.down.grad).all()


def test_identity_loss_alone_makes_the_factors_orthogonal() -> None:
    operator = LowRankOperator(HIDDEN, 4)
    with torch.no_grad():
        operator.down.add_(0.3 * torch.randn(4, HIDDEN))
    optimizer = torch.optim.SGD(operator.parameters(), lr=0.02)
    start = operator.identity_loss().item()
    for _ in range(200):
        optimizer.zero_grad()
        operator.identity_loss().backward()
        optimizer.step()
    assert operator.identity_loss().item() < 0.1 * start


def closed_mask(width: int = 8) -> UnifiedMask:
    mask = UnifiedMask(HIDDEN, width, PatConfig(pruning_ratio=0.3, total_steps=6))
    for _ in range(3):
        with torch.no_grad():
            mask.proxy.add_(torch.randn(HIDDEN))
        mask.advance()
    return mask


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scaled", [False, True])
def test_dead_channels_are_exactly_zero_and_folding_agrees(dtype: torch.dtype, scaled: bool) -> None:
    mask = closed_mask()
    hsm = HybridSparsificationModule(LowRankOperator(HIDDEN, 3), output_scale_size=HIDDEN if scaled else None)
    with torch.no_grad():
        for parameter in hsm.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.3)
    weight, x = torch.randn(HIDDEN, 7), torch.randn(5, 7)
    z = hsm((x @ weight.T).to(dtype), mask)
    assert z.dtype == dtype
    assert torch.equal(z[:, ~mask.kept], torch.zeros(5, HIDDEN - 8, dtype=dtype))
    folded = hsm.fold(weight, mask().detach())
    assert torch.allclose(z.float(), x @ folded.T, atol=1e-5 if dtype == torch.float32 else 0.15)


def test_gradients_reach_operator_and_proxy_while_the_gate_is_open() -> None:
    mask = UnifiedMask(HIDDEN, 8, PatConfig(pruning_ratio=0.3, total_steps=60))
    mask.advance()
    hsm = HybridSparsificationModule(LowRankOperator(HIDDEN, 3))
    hsm(torch.randn(4, HIDDEN), mask).square().sum().backward()
    operator = hsm.operator
    assert isinstance(operator, LowRankOperator)
    assert operator.scale.grad is not None and operator.scale.grad.abs().sum() > 0
    assert mask.proxy.grad is not None and mask.proxy.grad.abs().sum() > 0
