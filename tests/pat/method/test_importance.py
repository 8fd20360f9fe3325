"""Orders of channels: each against its definition, written out another way."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from pat.families.known import family_of
from pat.method.importance import channel_importance, fisher, gradient_batches
from pat.settings.config import PatConfig
from tests.kit.pruning_inputs import pca_basis
from tests.kit.tiny_models import CONFIGS, tiny_model
from tests.kit.training import random_text

FAMILIES_ONCE = ["llama-grouped-tied", "gemma", "qwen3"]


def order(name: str, mask: Any, **choices: Any) -> Tensor:
    found = channel_importance(tiny_model(name), PatConfig(pruning_ratio=0.25, mask=mask, **choices), random_text())
    assert found is not None and found.shape == (48,)
    return found


def loss_with_mask(model: Any, tokens_T: Tensor, channel: int, change: float) -> float:
    """Return one row's summed cross-entropy when a channel's mask is 1 + change, by editing the weights that write it."""
    family = family_of(model.config)
    edited: list[Tensor] = []
    for write in family.writes(3):
        module = model.get_submodule(write)
        edited.append(module.weight[:, channel] if write == family.embedding else module.weight[channel])
    for part in edited:
        part.mul_(1 + change)
    logits = model(input_ids=tokens_T[None], use_cache=False).logits[0]
    for part in edited:
        part.div_(1 + change)
    return float(cross_entropy(logits[:-1], tokens_T[1:], reduction="sum"))


@torch.no_grad()
def test_fisher_is_the_squared_derivative_by_the_mask_summed_over_rows() -> None:
    """Against central differences of weights scaled by hand; the norms compute in fp32, so the differences are not small ones."""
    text = random_text()
    model: Any = tiny_model("llama").double()
    with torch.enable_grad():
        found_D = fisher(model, gradient_batches(text))
    for channel in (0, 7, 31):
        expected = 0.0
        for tokens_T, mask_T in zip(text.ids_NT, text.mask_NT, strict=True):
            real_T = tokens_T[mask_T.bool()]
            slope = (loss_with_mask(model, real_T, channel, 3e-3) - loss_with_mask(model, real_T, channel, -3e-3)) / 6e-3
            expected += slope**2
        assert found_D[channel].item() == pytest.approx(expected, rel=5e-3)


@pytest.mark.parametrize("name", FAMILIES_ONCE)
def test_variances_add_up_to_the_principal_ones(name: str) -> None:
    text = random_text()
    expected = pca_basis(tiny_model(name), text.batches()).importance_D.sum()
    assert torch.allclose(order(name, "variance").sum(), expected, rtol=1e-9)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_channel_whose_weights_are_all_zero_matters_least(name: str) -> None:
    model: Any = tiny_model(name)
    family = family_of(model.config)
    with torch.no_grad():
        for write in family.writes(3):
            module = model.get_submodule(write)
            (module.weight[:, 5] if write == family.embedding else module.weight[5]).zero_()
            if getattr(module, "bias", None) is not None:
                module.bias[5] = 0
    for mask in ("variance", "fisher"):
        found = channel_importance(model, PatConfig(pruning_ratio=0.25, mask=mask), random_text())
        assert found is not None and found.argmin() == 5 and found[5] == 0 < found.sort().values[1]


def test_plain_orders() -> None:
    assert order("llama", "leading").argmax() == 0 and order("llama", "frozen").argmax() == 47
    assert torch.equal(order("llama", "random", seed=3), order("llama", "random", seed=3))
    assert not torch.equal(order("llama", "random", seed=3), order("llama", "random", seed=4))
    assert channel_importance(tiny_model("llama"), PatConfig(pruning_ratio=0.25), None) is None
    double: Any = tiny_model("llama")
    with torch.no_grad():
        for layer in double.model.layers:
            layer.mlp.down_proj.weight[9] *= 50
    found = channel_importance(double, PatConfig(pruning_ratio=0.25, mask="magnitude"), None)
    assert found is not None and found.argmax() == 9


def test_measuring_leaves_the_model_as_it_was() -> None:
    model = tiny_model("llama").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for mask in ("variance", "fisher", "magnitude"):
        channel_importance(model, PatConfig(pruning_ratio=0.25, mask=mask), random_text())
    assert model.training and all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
