"""What is measured on calibration text: against sums by hand over stock hidden states, whatever the batches, blind to padding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pat.pruners.activations import block_influence, channel_activations, input_norms, samples
from tests.kit.pruning_inputs import calibration, write_base
from tests.kit.tiny_models import random_tokens, tiny_model

BATCH = {"input_ids": random_tokens(4, 12, seed=1), "attention_mask": torch.ones(4, 12, dtype=torch.long)}


def in_parts(batch: dict[str, Tensor], size: int) -> list[dict[str, Tensor]]:
    return [{name: tensor[start : start + size] for name, tensor in batch.items()} for start in range(0, 4, size)]


def padded(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The batch with columns of tokens that do not count behind it."""
    ids, mask = batch["input_ids"], batch["attention_mask"]
    return {"input_ids": torch.cat([ids, ids[:, :3]], 1), "attention_mask": torch.cat([mask, torch.zeros_like(mask[:, :3])], 1)}


def measures(model: Any, batches: list[dict[str, Tensor]]) -> list[Tensor]:
    norms = input_norms(model, batches, ["model.layers.1.self_attn.o_proj", "model.layers.2.mlp.down_proj"])
    return [*norms.values(), block_influence(model, batches), channel_activations(model, batches)]


@pytest.mark.parametrize("name", ["llama-grouped", "gemma"])
def test_neither_batches_nor_padding_matter(name: str) -> None:
    model = tiny_model(name)
    expected = measures(model, [BATCH])
    for batches in (in_parts(BATCH, 1), in_parts(BATCH, 3), [padded(BATCH)]):
        for one, other in zip(expected, measures(model, batches), strict=True):
            assert torch.allclose(one, other, rtol=1e-5, atol=1e-7)


def test_block_influence_from_stock_hidden_states() -> None:
    """Hidden state i goes into layer i; the last one that stock software hands out is normed, so that layer is left out here."""
    model: Any = tiny_model("qwen3")
    with torch.no_grad():
        states = model(**BATCH, output_hidden_states=True).hidden_states
    found = block_influence(model, [BATCH])
    for layer in (0, 1):
        one, other = states[layer].double(), states[layer + 1].double()
        cosines = (one * other).sum(-1) / (one.square().sum(-1) * other.square().sum(-1)).sqrt()
        assert found[layer].item() == pytest.approx(1 - cosines.mean().item(), abs=1e-9)


def test_a_turned_stream_has_the_influence_of_its_angle() -> None:
    """A layer that writes −2x: its output points the other way, influence 2; one that writes x: the same way, influence 0."""
    model: Any = tiny_model("llama")
    for layer, factor in ((0, -1.0), (1, 2.0)):
        model.get_submodule(f"model.layers.{layer}").register_forward_hook(lambda _m, inputs, _o, factor=factor: inputs[0] * factor)
    assert block_influence(model, [BATCH])[:2].tolist() == pytest.approx([2.0, 0.0], abs=1e-9)


def test_input_norms_by_hand() -> None:
    """The first layer's queries read the normed embedding."""
    model: Any = tiny_model("llama")
    with torch.no_grad():
        embedded = model.get_input_embeddings()(BATCH["input_ids"])
        normed = model.model.layers[0].input_layernorm(embedded).double()
    (found,) = input_norms(model, in_parts(BATCH, 2), ["model.layers.0.self_attn.q_proj"]).values()
    assert torch.allclose(found, normed.flatten(0, 1).square().sum(0).sqrt(), rtol=1e-6)


def test_channel_activations_by_hand() -> None:
    """With silent layers every norm gets the embedding; unit gains make all seven outputs the same."""
    model: Any = tiny_model("llama")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.fill_(1.0)
            elif "o_proj" in name or "down_proj" in name:
                parameter.zero_()
        x_BTD = model.get_input_embeddings()(BATCH["input_ids"]).double()
    sizes_BTD = (x_BTD / (x_BTD.square().mean(-1, keepdim=True) + 1e-6).sqrt()).abs()
    expected = [7 * sum(sizes_BTD[sample, :, channel].mean().item() ** 2 for sample in range(4)) ** 0.5 for channel in range(48)]
    assert channel_activations(model, in_parts(BATCH, 3)).tolist() == pytest.approx(expected, rel=1e-5)


def test_hooks_do_not_stay() -> None:
    model = tiny_model("llama")
    measures(model, [BATCH])
    assert not any(module._forward_hooks for module in model.modules())


def test_samples_are_as_many_and_as_long_as_the_model_takes(tmp_path: Any) -> None:
    write_base("llama", tmp_path / "base")
    batches = list(samples(tmp_path / "base", calibration(tmp_path, tokens=300), 128))
    assert sum(int(batch["attention_mask"].sum()) for batch in batches) == 300
    assert {batch["input_ids"].shape[1] for batch in batches} == {128}
