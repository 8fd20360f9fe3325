"""Magnitude pruning: the score by hand, exactness against zeroed channels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from pat.families.known import family_of
from pat.models.masked import kept_channels_only
from pat.pruners.channel_magnitude import channel_norms
from pat.pruners.pruning import prune
from tests.kit.tiny_models import CONFIGS, random_tokens, tiny_model


@pytest.mark.lengthy
@pytest.mark.parametrize("name", CONFIGS)
def test_pruned_equals_the_model_with_the_weakest_channels_at_zero(name: str, tmp_path: Path) -> None:
    model = tiny_model(name)
    model.save_pretrained(tmp_path / "base")
    record = prune(tmp_path / "base", "channel-magnitude", 0.5, "auto", tmp_path / "pruned")
    stock: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "pruned")
    family = family_of(model.config)
    norms = channel_norms(tmp_path / "base", family, 48, tied=bool(model.config.tie_word_embeddings))
    kept = torch.zeros(48, dtype=torch.bool)
    kept[norms.argsort(descending=True)[:24]] = True
    kept_channels_only(model, kept)
    tokens = random_tokens()
    with torch.no_grad():
        assert (model(input_ids=tokens).logits - stock(input_ids=tokens).logits).abs().max() <= 1e-4
    assert record["logit_gap"] <= 1e-4 and record["hidden_size"] == {"before": 48, "after": 24}


def test_the_score_by_hand(tmp_path: Path) -> None:
    """One weight of one tensor at a time, all others zero: its square, times the gain's where a norm stands before it."""
    model = tiny_model("llama")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(2.0 if "norm" in name else 0.0)
        model.get_parameter("model.embed_tokens.weight")[5, 0] = 3.0
        model.get_parameter("model.layers.0.self_attn.o_proj.weight")[1, 7] = 4.0
        model.get_parameter("model.layers.1.mlp.up_proj.weight")[9, 2] = 5.0
        model.get_parameter("lm_head.weight")[9, 3] = 6.0
        model.get_parameter("model.layers.2.self_attn.q_proj.weight")[0, 0] = 2.0
    model.save_pretrained(tmp_path)
    norms = channel_norms(tmp_path, family_of(model.config), 48, tied=False)
    assert norms[:5].tolist() == pytest.approx([(3.0**2 + (2.0 * 2.0) ** 2) ** 0.5, 4.0, 10.0, 12.0, 0.0])


def test_the_score_does_not_depend_on_where_a_factor_sits(tmp_path: Path) -> None:
    model = tiny_model("gemma-untied")
    model.save_pretrained(tmp_path / "a")
    before = channel_norms(tmp_path / "a", family_of(model.config), 48, tied=False)
    with torch.no_grad():
        norm = model.get_parameter("model.layers.0.input_layernorm.weight")
        norm.copy_(3.0 * (1 + norm) - 1)  # Gemma multiplies by 1 + g
        for reader in ("q_proj", "k_proj", "v_proj"):
            model.get_parameter(f"model.layers.0.self_attn.{reader}.weight").div_(3.0)
    model.save_pretrained(tmp_path / "b")
    assert torch.allclose(before, channel_norms(tmp_path / "b", family_of(model.config), 48, tied=False), rtol=1e-5)
