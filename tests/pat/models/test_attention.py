"""Without a mask a model must give what the stock one gives with it, or be left alone."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from pat.models.attention import rely_on_causal_kernel
from pat.models.reshaped import ReshapedConfig

LENGTHS = (12, 7, 1)
SHAPE: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 8,
    "num_key_value_heads": 2, "initializer_range": 0.3,
}  # fmt: skip
LLAMA = LlamaConfig(**SHAPE)
CONFIGS: dict[str, Any] = {
    "llama": LLAMA,
    "gemma": GemmaConfig(**SHAPE),
    "gemma2": Gemma2Config(**SHAPE, attn_logit_softcapping=0.1, query_pre_attn_scalar=1),
    "mistral": MistralConfig(**SHAPE, sliding_window=12),
    "qwen2": Qwen2Config(**SHAPE, use_sliding_window=False),
    "qwen3": Qwen3Config(**SHAPE),
    "reshaped": ReshapedConfig.of(LLAMA, groups=[2, 1], neurons=[48, 31]),
}


def double(config: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(copy.deepcopy(config)).double()
    return model


def padded_batch() -> dict[str, Tensor]:
    rows = [torch.arange(3, 3 + length) * 5 % 64 for length in LENGTHS]
    ids_BT = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask_BT = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    return {"input_ids": ids_BT, "attention_mask": mask_BT, "labels": ids_BT.masked_fill(mask_BT == 0, -100)}


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("name", CONFIGS)
def test_loss_and_gradients_are_those_of_the_stock_model_with_its_mask(name: str, masked: bool) -> None:
    figures = []
    for changed in (False, True):
        model = double(CONFIGS[name])
        batch = padded_batch()
        if changed:
            rely_on_causal_kernel(model, max(LENGTHS))
            batch = batch if masked else {key: tensor for key, tensor in batch.items() if key != "attention_mask"}
        loss = model(**batch).loss
        loss.backward()
        figures.append([loss.detach(), *(parameter.grad for parameter in model.parameters())])
    assert all(torch.allclose(one, other, rtol=1e-9, atol=1e-12) for one, other in zip(*figures, strict=True))


@pytest.mark.parametrize("longest", [11, 12])
def test_a_window_narrower_than_the_longest_row_is_kept(longest: int) -> None:
    """With a window of 11 tokens the twelfth does not see the first: told of no row that long, the model would show it to it."""
    model = double(MistralConfig(**SHAPE, sliding_window=11))
    ids_1T = padded_batch()["input_ids"][:1]
    expected_1TV = model(input_ids=ids_1T).logits
    rely_on_causal_kernel(model, longest)
    logits_1TV = model(input_ids=ids_1T).logits
    assert torch.allclose(logits_1TV[:, :11], expected_1TV[:, :11], rtol=1e-9)
    assert torch.equal(logits_1TV[:, 11], expected_1TV[:, 11]) == (longest == 12)


def test_a_saved_model_is_stock_again(tmp_path: Path) -> None:
    model = double(LLAMA)
    batch = padded_batch()
    rely_on_causal_kernel(model, max(LENGTHS))
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64)
    left = {key: tensor.flip(1) for key, tensor in batch.items()}
    assert "causal_sdpa" not in (tmp_path / "config.json").read_text()
    assert torch.allclose(again(**left).loss, double(LLAMA)(**left).loss, rtol=1e-12)
    assert not torch.allclose(model(**left).loss, again(**left).loss, rtol=1e-6)  # the changed one must not be given such rows
