"""`variant: release` against an oracle written from its formulas, and what the package does with a mask that stays soft."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pat import PatConfig, PatModel, attach
from pat.errors import UserError
from pat.method.compaction import obstacle
from pat.method.release_mask import ReleaseMask
from pat.settings.config import PatChoices
from pat.settings.mistakes import load
from pat.training.health import mask_figures
from pat.training.trainer import parameter_groups
from tests.kit import release_oracle as oracle
from tests.kit.tiny_models import random_tokens, tiny_model
from tests.kit.training import trained

TOTAL, MILESTONE, STEPS = 30, 10, 20
RATE, MASK_RATE = 5e-3, 0.02
STOCK_ROUNDING = 2e-6
"""The stock class forms its norms and its loss in fp32, whatever the weights; all else here is in float64."""
CHOICES: dict[str, Any] = {
    "pruning_ratio": 0.25, "variant": "release", "hio_rank": 5, "lora_rank": 3, "lora_alpha": 6.0, "lora_dropout": 0.0,
    "total_steps": TOTAL, "mask_learning_rate": MASK_RATE,
}  # fmt: skip


def released() -> PatModel:
    """Return a model in float64 whose trained tensors are away from their start."""
    stock: Any = tiny_model("llama")
    model = attach(stock.double(), PatConfig(**CHOICES)).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model.train()


def shape_of(model: PatModel) -> oracle.Shape:
    config: Any = model.get_base_model().config
    return oracle.Shape(config.num_hidden_layers, config.num_attention_heads, config.rms_norm_eps, 6.0 / 3, model.width, MILESTONE)


def plain_name(name: str) -> str:
    """Return the oracle's name of a parameter of the model."""
    name = name.removeprefix("base_model.model.").replace(".base_layer", "").replace(".default.weight", "")
    return "proxy" if name.endswith("mask.proxy") else name


def plain_tensors(model: PatModel) -> dict[str, Tensor]:
    """Return copies of all tensors under the oracle's names, those that are trained as leaves."""
    named = {plain_name(name): parameter for name, parameter in model.named_parameters() if "sparsifier.hsms" not in name}
    for write, hsm in model.sparsifier.by_write().items():
        named |= {f"{write}.{name}": parameter for name, parameter in hsm.named_parameters()}
    return {name: parameter.detach().clone().requires_grad_(parameter.requires_grad) for name, parameter in named.items()}


def gradients(model: PatModel) -> dict[str, Tensor]:
    found = {plain_name(name): parameter.grad for name, parameter in model.named_parameters() if "sparsifier.hsms" not in name}
    for write, hsm in model.sparsifier.by_write().items():
        found |= {f"{write}.{name}": parameter.grad for name, parameter in hsm.named_parameters()}
    return {name: gradient for name, gradient in found.items() if gradient is not None}


@pytest.mark.parametrize("step", [0, 1, 3, 7, 8, 9, 10, 25])
def test_forward_losses_and_gradients_are_the_oracles(step: int) -> None:
    model = released()
    for _ in range(step):
        model.advance()
    tensors, shape, tokens = plain_tensors(model), shape_of(model), random_tokens()
    outputs = model(input_ids=tokens, labels=tokens)
    expected = oracle.losses(tensors, tokens, step, shape)
    logits = oracle.logits(tensors, tokens, oracle.soft_mask(tensors["proxy"], step, MILESTONE), shape)
    assert torch.allclose(outputs.logits, logits, rtol=0, atol=STOCK_ROUNDING)
    for name, loss in expected.items():
        assert model.loss_terms[f"{name}_loss"].item() == pytest.approx(loss.item(), abs=STOCK_ROUNDING if name == "instruct" else 1e-12), (
            name
        )
    total = torch.stack(list(expected.values())).sum()
    assert outputs.loss.item() == pytest.approx(total.item(), abs=STOCK_ROUNDING)
    total.backward()
    outputs.loss.backward()
    found = gradients(model)
    wanted = {name: tensor.grad for name, tensor in tensors.items() if tensor.grad is not None}
    assert set(found) == set(wanted) and "proxy" in wanted
    for name, gradient in wanted.items():
        assert (found[name] - gradient).abs().max() < 5e-6 * gradient.abs().max(), name


def test_twenty_steps_are_the_oracles_past_the_milestone() -> None:
    model = released()
    tensors, shape = plain_tensors(model), shape_of(model)
    trained_names = [name for name, tensor in tensors.items() if tensor.requires_grad]
    plain = oracle.Adam(tensors, {name: MASK_RATE if name == "proxy" else RATE for name in trained_names})
    optimizer = torch.optim.AdamW(parameter_groups(model, RATE))
    for step in range(STEPS):
        tokens = random_tokens(seed=step)
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        model.advance()
        expected = torch.stack(list(oracle.losses(tensors, tokens, step, shape).values())).sum()
        expected.backward()
        plain.step()
        assert loss.item() == pytest.approx(expected.item(), rel=1e-6), step
    after = plain_tensors(model)
    for name in trained_names:
        assert torch.allclose(after[name], tensors[name], rtol=0, atol=1e-4), name
    rounded = torch.zeros(48, dtype=torch.float64)
    rounded[torch.argsort(tensors["proxy"].detach(), descending=True)[: shape.wanted]] = 1.0
    tokens = random_tokens(seed=99)
    with torch.no_grad():
        found = model.eval()(input_ids=tokens).logits
        wanted = oracle.logits(tensors, tokens, rounded, shape)
        assert torch.allclose(found, wanted, atol=1e-4)
        assert torch.allclose(model.merge_and_unload()(input_ids=tokens).logits, wanted, atol=1e-4)


def test_the_oracles_own_figures_by_hand() -> None:
    assert oracle.temperature(0, 10_000) == oracle.temperature(1, 10_000) == 1.0
    assert oracle.temperature(8000, 10_000) == oracle.temperature(25_000, 10_000) == pytest.approx(41.27, abs=0.01)
    proxy = torch.tensor([0.5, 0.0, -0.25, -0.5], dtype=torch.float64)  # two open, three wanted
    assert oracle.active_loss(proxy, 3).item() == pytest.approx(10 / 3 + 0.5**2 / 2 + 0.25**2 / 2)


def make_mask(width: int = 8, size: int = 12, **choices: Any) -> ReleaseMask:
    settings = PatConfig(pruning_ratio=1 - width / size, variant="release", total_steps=60, **choices)
    return ReleaseMask(size, width, settings)


def test_at_the_start_all_are_open_and_the_count_pushes_them_down() -> None:
    mask = make_mask()
    assert torch.equal(mask(), torch.ones(12)) and mask.kept_count() == 12
    mask.active_loss().backward()
    assert mask.active_loss().item() == pytest.approx(10 * 4 / 8 + 0.25)
    assert mask.proxy.grad is not None and torch.allclose(mask.proxy.grad, torch.full((12,), 10 / 8 - 2 * 0.5 / 12))


def test_the_mask_is_soft_in_training_to_the_end_and_rounded_out_of_it() -> None:
    mask = make_mask()
    noise = torch.Generator().manual_seed(0)
    for step in range(1, 41):
        with torch.no_grad():
            mask.proxy.add_(torch.randn(12, generator=noise) * 0.02)
        before = mask.proxy.detach().clone()
        mask.advance()
        assert torch.equal(mask.proxy, before) and not mask.closed  # the optimizer's alone
        mask.train()
        soft = mask()
        tau = oracle.temperature(step, 20)
        assert torch.allclose(soft.double(), torch.sigmoid(tau * before.double()) + max(0.5 - step / 20, 0.0), atol=1e-6)
        assert soft.requires_grad and mask.finished == (step >= 20)
        hard = mask.eval()()
        assert (set(hard.tolist()) <= {0.0, 1.0} and int(hard.sum()) == 8) == mask.finished
    restored = make_mask()
    restored.load_state_dict(mask.state_dict())
    assert torch.equal(restored.eval()(), mask()) and torch.equal(restored.train()(), mask.train()())


@pytest.mark.parametrize("exact", [True, False])
def test_the_merged_width_is_the_wanted_one_or_what_the_mask_came_to(exact: bool) -> None:
    model: Any = trained("llama", variant="release", exact_count=exact)
    with torch.no_grad():
        model.sparsifier.mask.proxy.copy_(torch.linspace(-1, 0.999, 48))  # 24 open, 36 wanted
    model.advance()
    tokens = random_tokens()
    assert model.width == (36 if exact else 24)
    stock = model.merge_and_unload()
    with torch.no_grad():
        assert torch.allclose(stock(input_ids=tokens).logits, model.eval()(input_ids=tokens).logits, atol=1e-4)
    assert stock.config.hidden_size == model.width


def test_a_count_that_stock_software_refuses_is_told_at_the_merge() -> None:
    model = trained("llama", variant="release", exact_count=False)
    with torch.no_grad():
        model.sparsifier.mask.proxy.fill_(-1.0)[:25] = 1.0
    model.advance()
    with pytest.raises(UserError, match="the mask came to 25 channels, and stock software takes multiples of the 4 heads alone"):
        model.merge_and_unload()


def test_an_adapter_of_the_release_opens_as_it_was_saved(tmp_path: Path) -> None:
    model = trained("llama", variant="release", exact_count=False)
    model.save_pretrained(str(tmp_path))
    loaded = PatModel.from_pretrained(tiny_model("llama"), tmp_path)
    tokens = random_tokens()
    with torch.no_grad():
        assert torch.equal(loaded(input_ids=tokens).logits, model.eval()(input_ids=tokens).logits)
    assert loaded.width == model.width


def test_it_can_be_merged_behind_the_milestone_alone_and_never_compacted() -> None:
    model = trained("llama", steps=3, variant="release")
    with pytest.raises(UserError, match="the mask is still open"):
        model.merge_and_unload()
    assert obstacle(model.pat_config, 48, 36) == "the released code's mask stays soft to the last step"
    fixed = model.pat_config.changed(mask="leading")
    assert obstacle(fixed, 48, 36) is None


def test_its_health_tells_the_temperature_that_it_keeps() -> None:
    model = trained("llama", variant="release")
    figures = mask_figures(model, model.sparsifier.mask.step)
    assert figures["tau"] == pytest.approx(1 / (1 - math.log(3) / math.log(4))) and figures["active_loss"] > 0  # 0.8·4 = 3


def test_mixed_precision_carries_an_fp32_stream_and_plain_bf16_a_bf16_one() -> None:
    stock: Any = tiny_model("llama").to(torch.bfloat16)  # type: ignore[arg-type]
    model = attach(stock, PatConfig(**CHOICES))
    streams: list[Tensor] = []
    stock.model.norm.register_forward_pre_hook(lambda _module, inputs: streams.append(inputs[0]))
    tokens = random_tokens()
    with torch.autocast("cpu", torch.bfloat16):
        model.train()(input_ids=tokens, labels=tokens).loss.backward()
    model.eval()(input_ids=tokens)
    assert [stream.dtype for stream in streams] == [torch.float32, torch.bfloat16]


@pytest.mark.parametrize("choices", [{}, {"variant": "release", "mask": "leading"}])
def test_another_count_is_the_released_masks_alone(choices: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"exact_count=False: only the trained mask of variant='release'"):
        PatConfig(pruning_ratio=0.25, exact_count=False, **choices)
    with pytest.raises(UserError, match="exact_count: false is not allowed: must be true but for the trained mask"):
        load(PatChoices, json.dumps(choices | {"exact_count": False}))
