"""The mask learns which channels matter: on models of which it is known, from every prior, whatever trains the rest."""

from __future__ import annotations

import copy
from typing import Any, get_args

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from pat import PatConfig, PatModel, attach
from pat.bases.gradient_basis import gradient_basis
from pat.data.calibration import Blocks
from pat.errors import SettingError
from pat.method.importance import channel_importance, gradient_batches
from pat.method.mask import UnifiedMask, gate, largest
from pat.method.mask_learning import ProxyLearner, spread, to_scale
from pat.settings.config import MaskPrior
from pat.training.mask_choice import fisher_order, overlaps
from pat.training.trainer import parameter_groups
from tests.kit.planted_channels import HALF, HIDDEN, chains, own_text, planted, pretrained, rotated, turned_within
from tests.kit.tiny_models import random_tokens, tiny_model
from tests.kit.training import random_text

MILESTONE = 30


def learned(model: PreTrainedModel, ids_NT: Tensor, **choices: Any) -> UnifiedMask:
    """Return the mask when it has closed, a little LoRA tuned beside it; the base is left as it was."""
    settings: dict[str, Any] = {"pruning_ratio": 0.5, "align": 1, "hio_rank": 0, "lora_rank": 2, "total_steps": 2 * MILESTONE}
    config = PatConfig(**settings | {"milestone_fraction": 0.5} | choices)
    masked = attach(copy.deepcopy(model), config, Blocks(ids_NT[:64], torch.ones_like(ids_NT[:64])))
    optimizer = torch.optim.AdamW(parameter_groups(masked, 1e-3))
    masked.train()
    for step in range(MILESTONE):
        rows_BT = ids_NT[torch.randperm(len(ids_NT), generator=torch.Generator().manual_seed(step))[:16]]
        masked(input_ids=rows_BT, labels=rows_BT).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        masked.advance()
    mask = masked.sparsifier.mask
    assert mask.closed and int(mask.kept.sum()) == HALF
    return mask


def share_found(mask: UnifiedMask, right_D: Tensor) -> float:
    """Return the share of the right half that the mask keeps; by chance it is a half."""
    return float((mask.kept & right_D).sum()) / HALF


@pytest.fixture(scope="module")
def world() -> tuple[PreTrainedModel, Tensor, Tensor]:
    """Return a planted model, the channels that are read, and text of its own."""
    model, read_D = planted()
    return model, read_D, own_text(model)


World = tuple[PreTrainedModel, Tensor, Tensor]


@pytest.mark.parametrize("turned", [False, True])
def test_the_mask_finds_the_channels_that_are_read(turned: bool, world: World) -> None:
    """In the native basis, and in one that a known rotation has mixed, within those that are read and within the noise."""
    model, read_D, ids_NT = world
    base = rotated(model, turned_within(read_D)) if turned else model
    assert share_found(learned(base, ids_NT), read_D) >= 0.95


def test_moved_by_adam_it_is_no_better_than_by_chance(world: World) -> None:
    """What learning by itself is there for: entry by entry, and decided early, a trained mask is a random one."""
    model, read_D, ids_NT = world
    assert share_found(learned(model, ids_NT, mask_learning="adam"), read_D) < 0.75


@pytest.mark.lengthy
def test_in_a_gradient_basis_it_keeps_the_leading_directions() -> None:
    model = pretrained()
    ids_NT = chains(256, 24, seed=1)
    text = Blocks(ids_NT[:128], torch.ones_like(ids_NT[:128]))
    basis = gradient_basis(copy.deepcopy(model), gradient_batches(text))
    sorted_by_basis = rotated(model, basis.directions_DD)
    leading_D = torch.arange(HIDDEN) < HALF
    by_itself = learned(sorted_by_basis, ids_NT)
    assert share_found(by_itself, leading_D) >= 0.85
    told = overlaps(by_itself, fisher_order(copy.deepcopy(sorted_by_basis), text))
    assert told["fisher_overlap"] >= 0.85 and told["chance_overlap"] == 0.5
    by_adam = overlaps(learned(sorted_by_basis, ids_NT, mask_learning="adam"), fisher_order(copy.deepcopy(sorted_by_basis), text))
    assert by_adam["fisher_overlap"] < 0.7


@pytest.mark.parametrize("prior", get_args(MaskPrior))
def test_every_channel_is_wide_open_at_step_zero_whatever_the_prior(prior: MaskPrior) -> None:
    """M = 1, the paper's demand, and yet the proxy stands in the prior's order, as many above zero as are to be kept."""
    config = PatConfig(pruning_ratio=0.25, mask_prior=prior, hio_rank=2, lora_rank=2)
    model = attach(tiny_model("llama"), config, random_text())
    mask = model.sparsifier.mask
    assert torch.equal(mask(), torch.ones(HIDDEN))
    if prior == "none":
        assert torch.equal(mask.proxy, torch.zeros(HIDDEN))
        return
    order_D = channel_importance(tiny_model("llama"), PatConfig(pruning_ratio=0.25, mask=prior), random_text())
    assert order_D is not None
    assert torch.equal(mask.proxy > 0, largest(order_D, model.width)) and mask.kept_count() == model.width
    assert torch.equal(torch.argsort(mask.proxy), torch.argsort(order_D.float()))
    assert 0.4 < float(mask.proxy.detach().max() - mask.proxy.detach().min()) < 1.5


def test_the_proxys_gradient_reaches_no_optimizer_and_no_clipping() -> None:
    """With `count: loss` and a count that is wrong, what others are clipped by is what it is without; yet the count is found."""
    norms = []
    for count in ("loss", "centre"):
        choices: dict[str, Any] = {"align": 1, "hio_rank": 2, "lora_rank": 2, "lora_dropout": 0.0, "total_steps": 60}
        model = attach(tiny_model("llama"), PatConfig(pruning_ratio=0.5, count=count, **choices))
        (group,) = parameter_groups(model.train(), 1e-3)
        assert all(parameter is not model.sparsifier.mask.proxy for parameter in group["params"])
        tokens = random_tokens()
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        left_D = model.sparsifier.mask.proxy.grad
        assert left_D is not None and not left_D.any()
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), 0.3)))
    assert norms[0] == norms[1] > 0


def test_the_loss_on_the_count_brings_it_near_before_membership_is_settled(world: World) -> None:
    model, read_D, ids_NT = world
    assert share_found(learned(model, ids_NT, count="loss"), read_D) >= 0.95
    mask = UnifiedMask(HIDDEN, HALF, PatConfig(pruning_ratio=0.5, count="loss", total_steps=90))
    counts = []
    for step in range(29):
        assert mask.learner is not None
        mask.learner.gradient.copy_(torch.randn(HIDDEN, generator=torch.Generator().manual_seed(step)))
        mask.learner.tokens += 100
        mask.advance()
        counts.append(mask.kept_count())
    assert float(mask.active_loss()) == abs(counts[-1] - HALF) <= HIDDEN // 4
    assert not mask.active_loss().requires_grad


def test_saliency_by_hand() -> None:
    """−g·M + ½·N·g²·M² of one batch, the first-order term left out as long as noise explains it."""
    learner = ProxyLearner(4, "saliency")
    proxy_D = torch.nn.Parameter(torch.tensor([0.3, -0.1, 0.2, 0.0]))
    proxy_D.register_post_accumulate_grad_hook(learner.take)
    slope_D = torch.tensor([0.25, 0.2, 0.1, 0.25])
    gate_D = torch.tensor([1.0, 0.9, 1.1, 1.0])
    by_gate_D = torch.tensor([0.01, -0.03, 0.02, 0.0])
    learner.note_tokens(50)
    (proxy_D * by_gate_D * slope_D).sum().backward()
    assert proxy_D.grad is not None and not proxy_D.grad.any() and learner.tokens == 50
    direction_D = learner.direction(gate_D, slope_D)
    assert torch.allclose(learner.first_order, 0.1 * by_gate_D * gate_D)
    assert torch.allclose(learner.second_order, 0.1 * 50 * (by_gate_D * gate_D).square())
    assert torch.argsort(direction_D).tolist() == [3, 0, 2, 1] == torch.argsort((by_gate_D * gate_D).square()).tolist()
    assert not learner.gradient.any() and learner.tokens == 0


def test_a_slope_of_nothing_changes_no_memory() -> None:
    learner = ProxyLearner(3, "saliency")
    learner.gradient.copy_(torch.tensor([1.0, 2.0, 3.0]))
    learner.tokens += 10
    direction_D = learner.direction(torch.ones(3), torch.tensor([0.0, 1e-20, 0.1]))
    assert learner.second_order[:2].tolist() == [0.0, 0.0] and learner.second_order[2] > 0
    assert bool(direction_D.isfinite().all())


def test_the_gradient_rule_keeps_large_entries_large() -> None:
    learner = ProxyLearner(3, "gradient")
    learner.gradient.copy_(torch.tensor([3.0, -0.3, 0.0]))
    direction_D = learner.direction(torch.ones(3), torch.ones(3))
    assert direction_D[0] / direction_D[1] == pytest.approx(-10.0) and direction_D[2] == 0.0
    assert direction_D.square().mean().item() == pytest.approx(1.0, rel=1e-4)


def test_a_few_dear_channels_do_not_hold_the_others_together() -> None:
    cost_D = torch.cat([torch.linspace(0.0, 1.0, 101), torch.tensor([1e6, 1e7])])
    found_D = to_scale(cost_D)
    assert found_D[-2:].tolist() == [3.0, 3.0] and found_D[0] == pytest.approx(-1.5, abs=0.05) and found_D[50:52].abs().max() < 0.05
    assert bool((found_D[:101].diff() > 0.02).all())
    assert torch.equal(to_scale(torch.full((5,), 2.0)), torch.zeros(5))


def test_spread_is_an_order_of_mean_zero_and_variance_one() -> None:
    found_D = spread(torch.tensor([5.0, 1.0, 100.0, 1.0]))
    assert torch.argsort(found_D).tolist() == [3, 1, 0, 2]  # of equal ones the later is lower
    assert found_D.mean().abs() < 1e-6 and found_D.square().mean().item() == pytest.approx(1.0)
    assert torch.equal(spread(torch.full((4,), 2.0)), torch.zeros(4))


def test_a_copy_learns_as_the_original_does() -> None:
    masks = [UnifiedMask(12, 6, PatConfig(pruning_ratio=0.5, total_steps=60))]
    masks.append(copy.deepcopy(masks[0]))
    for mask in masks:
        for step in range(5):
            weight_D = torch.randn(12, generator=torch.Generator().manual_seed(step))
            assert mask.learner is not None
            mask.learner.note_tokens(10)
            (mask() * weight_D).sum().backward()
            assert mask.proxy.grad is not None and not mask.proxy.grad.any()
            mask.advance()
    assert masks[0].proxy.any() and torch.equal(masks[0].proxy, masks[1].proxy)


def test_what_a_mask_remembers_is_saved_and_may_be_missing() -> None:
    """Half a schedule, saved and loaded, and the rest: the same bits. An adapter from before masks learned by themselves loads too."""
    straight, halves = (UnifiedMask(12, 6, PatConfig(pruning_ratio=0.5, total_steps=60)) for _ in range(2))

    def steps(mask: UnifiedMask, first: int, last: int) -> None:
        for step in range(first, last):
            assert mask.learner is not None
            mask.learner.note_tokens(10)
            (mask() * torch.randn(12, generator=torch.Generator().manual_seed(step))).sum().backward()
            mask.advance()

    steps(straight, 0, 14)
    steps(halves, 0, 7)
    resumed = UnifiedMask(12, 6, PatConfig(pruning_ratio=0.5, total_steps=60))
    resumed.load_state_dict(halves.state_dict())
    steps(resumed, 7, 14)
    assert torch.equal(straight.proxy, resumed.proxy)
    assert straight.learner is not None and resumed.learner is not None
    assert torch.equal(straight.learner.second_order, resumed.learner.second_order)
    model: PatModel = attach(tiny_model("llama"), PatConfig(pruning_ratio=0.25, hio_rank=2, lora_rank=2))
    state = {name: tensor for name, tensor in model.sparsifier.named_state().items() if ".learner." not in name}
    model.sparsifier.load_named_state(state, "an adapter")


def test_overlaps_by_hand() -> None:
    mask = UnifiedMask(6, 3, PatConfig(pruning_ratio=0.5, total_steps=60))
    with torch.no_grad():
        mask.proxy.copy_(torch.tensor([0.3, 0.2, 0.1, -0.1, -0.2, -0.3]))
    assert overlaps(mask, torch.tensor([9.0, 1.0, 8.0, 7.0, 2.0, 3.0])) == {"fisher_overlap": 2 / 3, "chance_overlap": 0.5}


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"mask": "random", "mask_prior": "fisher"}, "only a trained mask starts in an order"),
        ({"variant": "release", "mask_prior": "fisher"}, "leave out mask_prior"),
        ({"variant": "release", "mask_learning": "saliency"}, "leave out mask_prior and mask_learning"),
        ({"mask_learning": "sgd"}, "'saliency', 'gradient', 'adam'"),
        ({"mask_prior": "random"}, "'none', 'magnitude', 'variance', 'fisher', 'leading'"),
    ],
)
def test_contradictions_are_refused(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        PatConfig(pruning_ratio=0.5, **choices)


def test_the_gate_of_a_prior_is_the_papers() -> None:
    """From step 1 on the order shows in the gate, by the paper's formula."""
    mask = UnifiedMask(6, 3, PatConfig(pruning_ratio=0.5, total_steps=60, mask_prior="leading"), torch.arange(6).flip(0))
    mask.advance()
    assert torch.allclose(mask(), gate(mask.proxy, 1.0, 0.5 - 1 / 20))
    assert torch.equal(mask(), mask().sort(descending=True).values)


def test_tokens_that_nobody_counted_leave_the_curvature_in_charge() -> None:
    learner = ProxyLearner(3, "saliency")
    learner.gradient.copy_(torch.tensor([0.5, -0.1, 0.2]))
    direction_D = learner.direction(torch.ones(3), torch.full((3,), 0.25))
    assert torch.argsort(direction_D).tolist() == [1, 2, 0] and learner.tokens == 0
