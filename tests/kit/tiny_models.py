"""Tiny random stock models of every family, with non-trivial norm gains, for tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    OPTConfig,
    Phi3Config,
    PhiConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3Config,
    Qwen3MoeConfig,
    SmolLM3Config,
)

VOCABULARY = 97
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

CONFIGS: dict[str, Callable[[], Any]] = {
    "llama": lambda: LlamaConfig(**SHAPE),
    "llama-grouped": lambda: LlamaConfig(**SHAPE, num_key_value_heads=2),
    "llama-grouped-tied": lambda: LlamaConfig(**SHAPE, num_key_value_heads=2, tie_word_embeddings=True),
    "llama-biases-odd-head": lambda: LlamaConfig(**SHAPE, num_key_value_heads=2, head_dim=16, attention_bias=True, mlp_bias=True),
    "gemma": lambda: GemmaConfig(**SHAPE, num_key_value_heads=1, head_dim=16, tie_word_embeddings=True),
    "gemma-untied": lambda: GemmaConfig(**SHAPE, num_key_value_heads=1, head_dim=16, tie_word_embeddings=False),
    "mistral": lambda: MistralConfig(**SHAPE, num_key_value_heads=2),
    "qwen2": lambda: Qwen2Config(**SHAPE, num_key_value_heads=2),
    "qwen2-tied": lambda: Qwen2Config(**SHAPE, num_key_value_heads=2, tie_word_embeddings=True),
    # A large eps shows whether the norms inside attention, which share it, keep theirs.
    "qwen3": lambda: Qwen3Config(**SHAPE, num_key_value_heads=2, head_dim=16, rms_norm_eps=1e-2),
    "qwen3-tied": lambda: Qwen3Config(**SHAPE, num_key_value_heads=2, head_dim=16, tie_word_embeddings=True),
    # Yi's checkpoints are Llama's: many query heads to a key-value head, untied.
    "yi": lambda: LlamaConfig(**SHAPE | {"num_attention_heads": 6, "hidden_size": 48}, num_key_value_heads=1),
}


GRANITE: dict[str, Any] = {"embedding_multiplier": 6.0, "residual_multiplier": 0.3, "attention_multiplier": 0.2, "logits_scaling": 2.0}
LLAMA_3: dict[str, Any] = {
    "rope_type": "llama3", "rope_theta": 500.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
EXPERTS: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
MORE: dict[str, Callable[[], Any]] = {
    "olmo2": lambda: Olmo2Config(**SHAPE | {"num_key_value_heads": 2, "head_dim": 16}),
    "olmo2-tied-biases": lambda: Olmo2Config(**SHAPE, attention_bias=True, tie_word_embeddings=True),
    "gemma2": lambda: Gemma2Config(**SHAPE, num_key_value_heads=2, head_dim=16, query_pre_attn_scalar=12, sliding_window=4),
    "gemma2-untied-biases": lambda: Gemma2Config(
        **SHAPE, num_key_value_heads=2, head_dim=16, attention_bias=True, tie_word_embeddings=False, final_logit_softcapping=2.0
    ),
    "gemma3": lambda: Gemma3TextConfig(**SHAPE, num_key_value_heads=1, head_dim=16, rms_norm_eps=1e-2, sliding_window=4),
    "gemma3-untied": lambda: Gemma3TextConfig(**SHAPE, num_key_value_heads=2, head_dim=16, tie_word_embeddings=False),
    "phi3": lambda: Phi3Config(**SHAPE | {"num_key_value_heads": 2, "head_dim": 16}),
    "phi3-tied": lambda: Phi3Config(**SHAPE | {"tie_word_embeddings": True, "partial_rotary_factor": 0.5, "sliding_window": 4}),
    "granite": lambda: GraniteConfig(**SHAPE | GRANITE | {"num_key_value_heads": 2, "head_dim": 16}),
    "granite-tied-biases": lambda: GraniteConfig(**SHAPE | GRANITE, attention_bias=True, mlp_bias=True, tie_word_embeddings=True),
    "smollm3": lambda: SmolLM3Config(**SHAPE | {"head_dim": 16}, num_key_value_heads=2, no_rope_layers=[1, 0, 1]),
    "smollm3-untied-biases": lambda: SmolLM3Config(
        **SHAPE,
        attention_bias=True,
        mlp_bias=True,
        tie_word_embeddings=False,
        no_rope_layers=[0, 1, 1],
        use_sliding_window=True,
        sliding_window=4,
    ),
    "qwen2-moe": lambda: Qwen2MoeConfig(**SHAPE | EXPERTS, num_key_value_heads=2, shared_expert_intermediate_size=40),
    "qwen2-moe-tied": lambda: Qwen2MoeConfig(
        **SHAPE | EXPERTS | {"head_dim": 16},
        num_key_value_heads=4,
        shared_expert_intermediate_size=24,
        norm_topk_prob=True,
        tie_word_embeddings=True,
    ),
    "qwen3-moe": lambda: Qwen3MoeConfig(**SHAPE | EXPERTS | {"head_dim": 16}, num_key_value_heads=2),
    "qwen3-moe-tied-biases": lambda: Qwen3MoeConfig(
        **SHAPE | EXPERTS | {"head_dim": 16}, attention_bias=True, norm_topk_prob=True, tie_word_embeddings=True
    ),
    "phi": lambda: PhiConfig(**SHAPE | {"num_key_value_heads": 2, "head_dim": 16, "partial_rotary_factor": 0.5}),
    "phi-tied": lambda: PhiConfig(**SHAPE | {"tie_word_embeddings": True, "layer_norm_eps": 1e-2}),
    "llama3": lambda: LlamaConfig(**SHAPE | {"eos_token_id": [2, 5]}, num_key_value_heads=2, head_dim=16, rope_parameters=dict(LLAMA_3)),
}
"""Families that differ from those above in more than names, with tests of their own (test_more_families.py)."""
WIDE_SHAPE = {name: value for name, value in SHAPE.items() if name != "intermediate_size"} | {"num_attention_heads": 6}
UNNARROWED: dict[str, Callable[[], Any]] = {
    "opt": lambda: OPTConfig(**WIDE_SHAPE, ffn_dim=80),
    "opt-untied-no-biases": lambda: OPTConfig(**WIDE_SHAPE, ffn_dim=72, tie_word_embeddings=False, enable_bias=False, dropout=0.3),
    "pythia": lambda: GPTNeoXConfig(**WIDE_SHAPE, intermediate_size=80),
    "pythia-tied-no-biases": lambda: GPTNeoXConfig(
        **WIDE_SHAPE, intermediate_size=72, tie_word_embeddings=True, attention_bias=False, layer_norm_eps=1e-2,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 1.0},
    ),
}  # fmt: skip
"""Families whose width has to stay, which lose layers and neurons alone (test_unnarrowed_families.py)."""


def tiny_model(name: str, seed: int = 0) -> PreTrainedModel:
    """Return a random model whose logits are of order one and whose gains and biases are far from their defaults."""
    generator = torch.Generator().manual_seed(seed)
    model: Any = AutoModelForCausalLM.from_config((CONFIGS | MORE | UNNARROWED)[name]())
    with torch.no_grad():
        for parameter in model.parameters():
            spread = 0.15 if parameter.dim() >= 2 else 0.4
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
    model.eval()
    tiny: PreTrainedModel = model
    return tiny


def random_tokens(batch: int = 2, length: int = 10, seed: int = 0) -> torch.Tensor:
    """Return token ids without padding or special tokens."""
    return torch.randint(3, VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(seed))


def logits(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Return what a model says to tokens, (B, T, V)."""
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=tokens).logits
    return found
