"""The gate's laws, the schedule and the exact count, against the paper's formulas and by hand."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pat.method.mask import UnifiedMask, gate, largest, offset, straight_through_count, temperature
from pat.method.release_mask import ReleaseMask
from pat.settings.config import PatConfig

MILESTONES = st.integers(min_value=2, max_value=20_000)


def make_mask(hidden_size: int = 12, width: int = 8, total_steps: int = 60, **choices: Any) -> UnifiedMask:
    return UnifiedMask(hidden_size, width, PatConfig(pruning_ratio=1 - width / hidden_size, total_steps=total_steps, **choices))


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20), MILESTONES)
def test_every_channel_is_open_at_step_zero(proxy: list[float], milestone: int) -> None:
    opened = gate(torch.tensor(proxy), temperature(0, milestone), offset(0, milestone))
    assert torch.equal(opened, torch.ones(len(proxy)))


@given(st.lists(st.floats(-3, 3, width=32), min_size=2, max_size=20), MILESTONES, st.floats(0, 1))
def test_the_gate_is_monotone_in_the_proxy(proxy: list[float], milestone: int, part: float) -> None:
    step = min(int(part * milestone), milestone - 1)
    opened = gate(torch.tensor(sorted(proxy), dtype=torch.float64), temperature(step, milestone), offset(step, milestone))
    assert (opened.diff() >= 0).all()


@given(MILESTONES)
def test_temperature_and_offset_follow_the_paper(milestone: int) -> None:
    steps = sorted({1, milestone // 4, milestone // 2, milestone - 1} - {0})
    for step in steps:
        assert temperature(step, milestone) == pytest.approx(1 / (1 - math.log(step) / math.log(milestone)))
        assert offset(step, milestone) == pytest.approx(max(0.5 - step / milestone, 0))
    taus = [temperature(step, milestone) for step in range(min(milestone, 500))]
    assert all(later > earlier for earlier, later in pairwise(taus))


def test_worked_values_of_the_gate() -> None:
    # s0 = 100, s = 10: ln 10 / ln 100 = 1/2, so τ = 2 and β = 0.4.
    assert temperature(10, 100) == pytest.approx(2.0)
    opened = gate(torch.tensor([0.0, 0.5, -0.5]), temperature(10, 100), offset(10, 100))
    assert opened.tolist() == pytest.approx([0.9, 1 / (1 + math.exp(-1)) + 0.4, 1 / (1 + math.exp(1)) + 0.4])


def test_straight_through_count_counts_and_passes_the_gradient() -> None:
    proxy = torch.tensor([0.2, -0.1, 0.0, 3.0], requires_grad=True)
    count = straight_through_count(proxy, proxy > 0)
    count.backward()
    assert count.item() == 2
    assert proxy.grad is not None and proxy.grad.tolist() == [1, 1, 1, 1]


def test_active_loss_by_hand() -> None:
    mask = make_mask(count="loss", decide_fraction=1.0, mask_learning="adam")
    with torch.no_grad():
        mask.proxy.copy_(torch.linspace(-1, 1, 12))  # six positive, eight wanted
    loss = mask.active_loss()
    loss.backward()
    assert loss.item() == 2
    assert mask.proxy.grad is not None and torch.equal(mask.proxy.grad, -torch.ones(12))  # pushes every proxy up


@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"count": "loss"},
        {"count": "loss", "decide_fraction": 1.0},
        {"mask_learning": "gradient"},
        {"mask_learning": "adam"},
        {"mask": "frozen"},
        {"mask": "leading"},
        {"mask": "random", "closing": "at-once"},
    ],
)
@pytest.mark.parametrize("width", [1, 5, 11])
def test_exactly_the_wanted_channels_survive(choices: dict[str, Any], width: int) -> None:
    mask = make_mask(width=width, **choices)
    noise = torch.Generator().manual_seed(1)
    for _ in range(60):
        with torch.no_grad():  # an optimizer that does whatever it likes, also after the milestone
            mask.proxy.add_(torch.randn(12, generator=noise) * 0.1)
        mask.advance()
        if mask.step >= 20:
            assert mask.closed
            opened = mask()
            assert set(opened.tolist()) <= {0.0, 1.0}
            assert int(opened.sum()) == width == mask.kept_count()


def test_members_do_not_change_once_settled_and_close_smoothly() -> None:
    mask = make_mask(total_steps=300, decide_fraction=0.1)
    noise = torch.Generator().manual_seed(2)
    members = None
    previous = mask().detach()
    for _ in range(100):
        with torch.no_grad():
            mask.proxy.add_(torch.randn(12, generator=noise) * 0.01)
        mask.advance()
        opened = mask().detach()
        if mask.settled and members is None:
            members = mask.kept.clone()
            assert mask.step == 10  # a tenth of s0 = 100
        if members is not None:
            assert torch.equal(mask.kept, members)
            assert (opened - previous).abs().max() < 0.15  # no jump, the milestone included
        previous = opened
    assert members is not None and torch.equal(mask().bool(), members)


@given(st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=24, unique=True), st.data())
def test_centring_leaves_exactly_the_width_positive(proxy: list[float], data: st.DataObject) -> None:
    spaced = torch.tensor(sorted(proxy)) + torch.arange(len(proxy)) * 0.01
    width = data.draw(st.integers(1, len(proxy) - 1))
    mask = make_mask(hidden_size=len(proxy), width=width, total_steps=3000)
    with torch.no_grad():
        mask.proxy.copy_(spaced)
    mask.advance()
    assert mask.kept_count() == width
    assert torch.allclose(mask.proxy.diff(), spaced.diff(), atol=1e-6)  # a shift: the ranking is the optimizer's


def test_frozen_mask_gives_up_the_first_channels_linearly() -> None:
    mask = make_mask(mask="frozen", total_steps=60)
    for _ in range(5):
        mask.advance()
    assert mask().tolist() == pytest.approx([0.75] * 4 + [1.0] * 8)  # 1 - 5/20
    assert not mask.proxy.requires_grad


def test_a_fixed_mask_keeps_the_most_important_and_closes_through_the_papers_gate() -> None:
    importance_D = torch.tensor([3.0, 1.0, 4.0, 1.5, 9.0, 2.0])
    mask = UnifiedMask(6, 3, PatConfig(pruning_ratio=0.5, total_steps=60, mask="fisher"), importance_D)
    assert mask.kept.tolist() == [True, False, True, False, True, False] and torch.equal(mask(), torch.ones(6))
    for step in range(1, 20):
        mask.advance()
        expected = gate(torch.where(mask.kept, 0.3, -0.3), temperature(step, 20), offset(step, 20))
        assert torch.allclose(mask(), expected) and mask.active_loss() == 0
    mask.advance()
    assert torch.equal(mask().bool(), mask.kept) and not mask.proxy.requires_grad


def test_a_mask_that_closes_at_once_is_closed_from_the_start() -> None:
    mask = UnifiedMask(6, 3, PatConfig(pruning_ratio=0.5, mask="leading", closing="at-once"), torch.arange(6).flip(0))
    for _ in range(3):
        assert mask.closed and mask().tolist() == [1, 1, 1, 0, 0, 0] and mask.kept_count() == 3
        mask.advance()
    assert mask.config.milestone_step == 0


def test_state_survives_saving() -> None:
    mask, restored = make_mask(), make_mask()
    noise = torch.Generator().manual_seed(3)
    for _ in range(13):
        with torch.no_grad():
            mask.proxy.add_(torch.randn(12, generator=noise) * 0.1)
        mask.advance()
    restored.load_state_dict(mask.state_dict())
    for _ in range(10):
        assert torch.equal(restored(), mask())
        assert restored.step == mask.step
        mask.advance()
        restored.advance()


def test_gradient_of_the_gate_matches_finite_differences() -> None:
    mask = make_mask(total_steps=300)
    for _ in range(7):
        mask.advance()
    proxy = torch.randn(12, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w: gate(w, mask.temperature.double(), mask.offset.double()), (proxy,))


def test_nothing_pruned_is_always_open() -> None:
    mask = make_mask(width=12)
    for _ in range(30):
        assert torch.equal(mask(), torch.ones(12))
        mask.advance()


def test_largest_prefers_earlier_channels_among_equals() -> None:
    assert largest(torch.tensor([1.0, 2.0, 1.0, 1.0]), 2).tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"pruning_ratio": 1.0}, "pruning_ratio"),
        ({"pruning_ratio": -0.1}, "pruning_ratio"),
        ({"pruning_ratio": 0.2, "variant": "papre"}, "'paper', 'release'"),
        ({"pruning_ratio": 0.2, "hio_rank": -1}, "hio_rank"),
        ({"pruning_ratio": 0.2, "milestone_fraction": 0.0}, "milestone_fraction"),
        ({"pruning_ratio": 0.2, "total_steps": 3}, "milestone"),
        ({"pruning_ratio": 0.2, "closing": "at-once"}, "a mask that is learned has to close gradually"),
        ({"pruning_ratio": 0.2, "mask": "fischer"}, "'fisher', 'magnitude', 'random'"),
    ],
)
def test_impossible_choices_are_refused_by_name(choices: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PatConfig(**choices)  # type: ignore[arg-type]


@pytest.mark.parametrize("choices", [{}, {"mask": "frozen"}])
def test_compiled_code_is_built_for_the_open_and_the_closed_mask_alone(choices: dict[str, Any]) -> None:
    torch.compiler.reset()
    mask = make_mask(**choices)
    compiled = torch.compile(mask, backend="eager")
    assert torch.equal(compiled(), mask())
    with torch.compiler.set_stance("fail_on_recompile"):
        for _ in range(mask.config.milestone_step - 1):
            mask.advance()
            assert torch.equal(compiled(), mask())
    mask.advance()
    assert mask.closed and torch.equal(compiled(), mask.kept.float())


@pytest.mark.parametrize("variant", ["paper", "release"])
def test_the_state_of_step_0_is_step_0_again(variant: str) -> None:
    kind = {"paper": UnifiedMask, "release": ReleaseMask}[variant]
    mask: Any = kind(48, 36, PatConfig(pruning_ratio=0.25, variant=variant, total_steps=90))  # type: ignore[arg-type]
    start, gate_D = {name: tensor.clone() for name, tensor in mask.state_dict().items()}, mask().clone()
    with torch.no_grad():
        mask.proxy.add_(torch.linspace(-0.2, 0.2, 48))
    for _ in range(5):
        mask.advance()
    assert not torch.equal(mask(), gate_D)
    mask.load_state_dict(start)
    assert torch.equal(mask(), gate_D) and mask.step == 0
