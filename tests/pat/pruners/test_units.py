"""Configs that stock classes take, whatever number of heads is left."""

from __future__ import annotations

from typing import Any

from transformers import LlamaConfig

from pat.families.known import FAMILIES
from pat.models.sizes import Kept
from pat.pruners.units import config_without


def test_an_uneven_number_of_heads_becomes_another_type_or_none() -> None:
    config = LlamaConfig(
        hidden_size=48, num_attention_heads=8, num_key_value_heads=8, intermediate_size=80, rms_norm_eps=1e-3, vocab_size=97
    )
    even: Any = config_without(config, FAMILIES["llama"], Kept(6, 64), biases=False)
    uneven: Any = config_without(config, FAMILIES["llama"], Kept(5, 64), biases=False)
    assert even.model_type == "llama" and even.head_dim == 6
    assert (uneven.model_type, uneven.sliding_window, uneven.rms_norm_eps, uneven.vocab_size) == ("mistral", None, 1e-3, 97)
    assert (uneven.num_attention_heads, uneven.num_key_value_heads, uneven.head_dim, uneven.intermediate_size) == (5, 5, 6, 64)
    assert uneven.rope_parameters == config.rope_parameters
    assert config_without(config, FAMILIES["llama"], Kept(5, 64), biases=True) is None
