"""Operators: identity at the start, folding equals applying, gradients by finite differences, the losses by hand."""

from __future__ import annotations

import pytest
import torch

from pat.method.hsm import (
    DenseOperator,
    HybridSparsificationModule,
    IdentityOperator,
    LowRankOperator,
    Operator,
    PinnedOperator,
    ReleaseOperator,
    make_operator,
)
from pat.method.mask import UnifiedMask
from pat.method.orthogonality import identity_loss
from pat.settings.config import PatConfig

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


LOW_RANK = [lambda: LowRankOperator(HIDDEN, 3), lambda: PinnedOperator(HIDDEN, 3), lambda: ReleaseOperator(HIDDEN, 3)]
OPERATORS = [*LOW_RANK, lambda: DenseOperator(HIDDEN), IdentityOperator]


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
    distance = torch.linalg.matrix_norm(matrix - torch.eye(HIDDEN, dtype=torch.float64))
    assert torch.allclose(operator.distance_from_identity().double(), distance, atol=1e-6)


def test_low_rank_has_the_papers_number_of_parameters() -> None:
    assert sum(p.numel() for p in LowRankOperator(HIDDEN, 3).parameters()) == 2 * HIDDEN * 3 + 3


@pytest.mark.parametrize("make", LOW_RANK)
def test_gradients_match_finite_differences(make: object) -> None:
    operator = shaken(make())  # type: ignore[operator]
    y = torch.randn(3, HIDDEN, dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in operator.named_parameters()]

    def applied(y: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = torch.func.functional_call(operator, dict(zip(names, values, strict=True)), (y,))
        return result

    assert torch.autograd.gradcheck(applied, (y, *[p.detach().requires_grad_() for p in operator.parameters()]))


def test_operators_start_as_their_name_says() -> None:
    eye = torch.eye(3)
    free = make_operator(HIDDEN, PatConfig(pruning_ratio=0.25, hio_rank=3))
    pinned = make_operator(HIDDEN, PatConfig(pruning_ratio=0.25, hio_rank=3, operators="pinned"))
    release = make_operator(HIDDEN, PatConfig(pruning_ratio=0.25, hio_rank=3, variant="release"))
    assert type(free) is LowRankOperator and isinstance(pinned, PinnedOperator) and isinstance(release, ReleaseOperator)
    assert torch.allclose(free.down @ free.down.T, eye, atol=1e-6) and free.up.abs().max() == 0 and torch.equal(free.scale, torch.ones(3))
    assert torch.allclose(pinned.down @ pinned.down.T, eye, atol=1e-6) and torch.allclose(pinned.up.T @ pinned.up, eye, atol=1e-6)
    assert pinned.scale.abs().max() == 0 and release.up.abs().max() == 0


def test_a_free_operator_has_a_gradient_from_the_first_step_as_lora_has() -> None:
    operator = LowRankOperator(HIDDEN, 3)
    operator(torch.randn(4, HIDDEN)).square().sum().backward()
    assert operator.up.grad is not None and operator.up.grad.abs().max() > 0.1


def test_identity_loss_by_hand() -> None:
    operator, pinned = LowRankOperator(4, 2), PinnedOperator(4, 2)
    down, up = torch.tensor([[2.0, 0, 0, 0], [0, 1, 0, 0]]), torch.tensor([[1.0, 1], [0, 1], [0, 0], [0, 0]])
    with torch.no_grad():
        for each in (operator, pinned):
            each.down.copy_(down)  # L0·L0ᵀ − I = diag(3, 0)
            each.up.copy_(up)  # L1ᵀ·L1 − I = [[0, 1], [1, 1]]
    assert identity_loss(operator.held_factors(), "mean-square").item() == pytest.approx(9.0 / 4)
    assert identity_loss(pinned.held_factors(), "norm").item() == pytest.approx(3.0 + 3.0**0.5)


def test_identity_loss_alone_makes_the_held_factors_orthogonal() -> None:
    operator = LowRankOperator(HIDDEN, 4)
    with torch.no_grad():
        operator.down.add_(0.3 * torch.randn(4, HIDDEN))
    optimizer = torch.optim.SGD(operator.parameters(), lr=0.2)
    start = identity_loss(operator.held_factors(), "mean-square").item()
    for _ in range(200):
        optimizer.zero_grad()
        identity_loss(operator.held_factors(), "mean-square").backward()
        optimizer.step()
    assert identity_loss(operator.held_factors(), "mean-square").item() < 1e-6 * start


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
    assert operator.up.grad is not None and operator.up.grad.abs().sum() > 0
    assert mask.learner is not None and mask.learner.gradient.abs().sum() > 0
