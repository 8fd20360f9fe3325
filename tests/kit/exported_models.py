"""Narrow models of every family that a runtime opens, with a byte-level tokenizer, as folders that `pat export` takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
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
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3Config,
    Qwen3MoeConfig,
    SmolLM3Config,
)

from pat.checkpoints.merge import merge
from pat.data.calibration import Calibration
from pat.io.artefacts import write_jsonl
from pat.pruners.pruning import prune
from pat.settings.jobs import TuneJob
from pat.training.tuning import tune
from tests.kit.tiny_models import GRANITE, LLAMA_3
from tests.kit.tiny_world import ROWS, tiny_tokenizer
from tests.kit.training import train
from tests.kit.tuning_requests import asked

SPARE_ROWS = 5
"""Rows of the embedding beyond the tokenizer's, as published models have; transformers gives Qwen2's tokenizer a token more."""
PROMPT = "Which number comes after 12? It's  4\n\n"
SHAPE: dict[str, Any] = {
    "vocab_size": len(tiny_tokenizer()) + SPARE_ROWS, "hidden_size": 128, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
DEEPER: dict[str, int] = {"num_hidden_layers": 7}
"""So many layers that those come which are of another kind."""
EXPERTS: dict[str, Any] = {"num_experts": 12, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
WINDOWS: dict[str, Any] = DEEPER | {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 8}

CONFIGS: dict[str, Callable[[], PretrainedConfig]] = {
    "llama": lambda: LlamaConfig(**SHAPE),
    "llama-tied": lambda: LlamaConfig(**SHAPE, tie_word_embeddings=True),
    "llama-odd-heads-biases": lambda: LlamaConfig(**SHAPE, head_dim=64, attention_bias=True, mlp_bias=True),
    "llama3": lambda: LlamaConfig(**SHAPE | {"eos_token_id": [2, 5]}, rope_parameters=dict(LLAMA_3)),
    "llama-linear": lambda: LlamaConfig(**SHAPE, rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 2e4}),
    "llama-yarn": lambda: LlamaConfig(
        **SHAPE, rope_parameters={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 1e4}
    ),
    "mistral": lambda: MistralConfig(**SHAPE, sliding_window=None),
    "qwen2": lambda: Qwen2Config(**SHAPE),
    "qwen3-tied": lambda: Qwen3Config(**SHAPE, head_dim=128, tie_word_embeddings=True),
    "gemma": lambda: GemmaConfig(**SHAPE, head_dim=32),
    "gemma2": lambda: Gemma2Config(**SHAPE | WINDOWS),
    "gemma3": lambda: Gemma3TextConfig(**SHAPE | WINDOWS, tie_word_embeddings=True),
    "phi3": lambda: Phi3Config(**SHAPE),
    "granite": lambda: GraniteConfig(**SHAPE | GRANITE),
    "qwen3-moe": lambda: Qwen3MoeConfig(**SHAPE | EXPERTS | {"head_dim": 64}, norm_topk_prob=True),
    "smollm3": lambda: SmolLM3Config(**SHAPE | DEEPER),
}


IN_VLLM_ALONE: dict[str, Callable[[], PretrainedConfig]] = {
    "olmo2": lambda: Olmo2Config(**SHAPE),
    "qwen2-moe": lambda: Qwen2MoeConfig(**SHAPE | EXPERTS, shared_expert_intermediate_size=64),
    "phi": lambda: PhiConfig(**SHAPE),
}
"""Of which llama.cpp takes no narrower stream, or that are not written as GGUF."""
WIDE_SHAPE = {name: value for name, value in SHAPE.items() if name not in ("intermediate_size", "num_key_value_heads")} | {
    "num_hidden_layers": 3
}
UNNARROWED: dict[str, Callable[[], PretrainedConfig]] = {
    "opt": lambda: OPTConfig(**WIDE_SHAPE, ffn_dim=96),
    "pythia": lambda: GPTNeoXConfig(**WIDE_SHAPE, intermediate_size=96),
}
"""Families that lose layers and neurons alone."""


def random_model(config: Any, seed: int = 0) -> PreTrainedModel:
    """Return a model whose logits are of order one and whose gains and biases are far from their defaults."""
    generator = torch.Generator().manual_seed(seed)
    model: Any = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * (0.12 if parameter.dim() >= 2 else 0.4))
    made: PreTrainedModel = model.eval()
    return made


def write_base(folder: Path, config: Any, tokenizer: PreTrainedTokenizerFast | None = None, dtype: torch.dtype = torch.float32) -> Path:
    """Write a random model with a tokenizer."""
    random_model(config).to(dtype).save_pretrained(folder)  # type: ignore[arg-type]  # transformers' annotation wraps nn.Module.to wrongly
    (tokenizer or tiny_tokenizer()).save_pretrained(folder)
    return folder


def write_merged(folder: Path, name: str) -> Path:
    """Write a random model of a family, tune and prune it with PAT for a few steps, and merge; return the path of the merged one."""
    config = (CONFIGS | IN_VLLM_ALONE)[name]
    base = write_base(folder / "base", config())
    torch.manual_seed(0)
    model: Any = train(random_model(config()), align=32)
    model.save_pretrained(str(folder / "adapter"))
    merge(base, folder / "adapter", folder / "merged")
    return folder / "merged"


def write_shallow(folder: Path, name: str) -> Path:
    """Write a random model of a family whose width stays, cut by layers and neurons, tuned with LoRA and merged; return that one's path."""
    base, rows = write_base(folder / "base", UNNARROWED[name]()), folder / "rows.jsonl"
    write_jsonl(rows, ROWS)
    prune(base, "layers-and-neurons", 0.3, 32, folder / "cut", Calibration(rows, 4000))
    recipe = {"max_steps": 4, "learning_rate": 1e-3, "batch_size": 4, "max_length": 128, "device": "cpu", "lora": {"rank": 2}}
    tune(asked(folder / "cut", rows, "lora", 0.0, 0, TuneJob.model_validate({"tuning": recipe}), folder / "run", folder / "adapter"))
    merge(folder / "cut", folder / "adapter", folder / "merged")
    return folder / "merged"


def write_narrow(folder: Path, name: str, ratio: float = 0.25, align: int = 32, dtype: torch.dtype = torch.float32) -> Path:
    """Write a random model of a family and a narrower one that is cut from it; return the path of that."""
    write_base(folder / "base", CONFIGS[name](), dtype=dtype)
    prune(folder / "base", "channel-magnitude", ratio, align, folder / "narrow")
    return folder / "narrow"
