"""GGUF files of tiny random models, written by the `gguf` package in the way that llama.cpp's converter writes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter, get_tensor_name_map, quantize
from gguf.constants import MODEL_ARCH
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel, Qwen2Config, Qwen3Config

from tests.kit.tiny_world import tiny_tokenizer

TEMPLATE = "{% for message in messages %}<s>{{ message['content'] }}</s>{% endfor %}"
CONTROL, NORMAL = 3, 1
SHAPE: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 128, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "rms_norm_eps": 1e-5,
}  # fmt: skip
CONFIGS: dict[str, Callable[[int], Any]] = {
    "llama": lambda vocabulary: LlamaConfig(vocab_size=vocabulary, **SHAPE),
    "llama-tied": lambda vocabulary: LlamaConfig(vocab_size=vocabulary, **SHAPE, tie_word_embeddings=True),
    "qwen2": lambda vocabulary: Qwen2Config(vocab_size=vocabulary, **SHAPE),
    "qwen3-tied": lambda vocabulary: Qwen3Config(vocab_size=vocabulary, **SHAPE, head_dim=128, tie_word_embeddings=True),
}
ARCHITECTURES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
PERMUTED = ("attn_q", "attn_k")
"""llama.cpp lays the rows of a Llama's queries and keys out in another order."""


def random_model(name: str, seed: int = 0) -> PreTrainedModel:
    """Return a model of one of CONFIGS whose gains and biases are far from their defaults."""
    model: Any = AutoModelForCausalLM.from_config(CONFIGS[name](len(tiny_tokenizer())))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * (0.15 if parameter.dim() == 2 else 0.4))
    made: PreTrainedModel = model.eval()
    return made


def write_gguf(
    file: Path, model: PreTrainedModel, form: str = "F32", *, tokenizer: bool = True, keys: Mapping[str, str] | None = None,
    extra: tuple[str, ...] = (), pre: str = "smollm",
) -> Path:  # fmt: skip
    """Write the model with matrices in one of F32, F16, Q8_0; `keys` are set over the others, `extra` are tensors that no model has."""
    config: Any = model.config
    architecture = ARCHITECTURES[config.model_type]
    writer = GGUFWriter(file, architecture)
    writer.add_name("tiny")
    _add_sizes(writer, config)
    if tokenizer:
        _add_tokenizer(writer, pre)
    for key, value in (keys or {}).items():
        writer.add_string(key, value)
    names = get_tensor_name_map(MODEL_ARCH[architecture.upper()], config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if not (name == "lm_head.weight" and config.tie_word_embeddings):
            found = names.get_name(name, try_suffixes=(".weight", ".bias"))
            assert found is not None, name
            _add(writer, found, tensor.float().numpy(), form, config, architecture)
    for name in extra:
        writer.add_tensor(name, np.zeros(8, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _add_sizes(writer: GGUFWriter, config: Any) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10_000.0)
    writer.add_rope_dimension_count(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)


def _add_tokenizer(writer: GGUFWriter, pre: str) -> None:
    tokenizer = tiny_tokenizer()
    state = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    tokens = sorted(state["vocab"], key=state["vocab"].get)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([CONTROL if token in tokenizer.all_special_tokens else NORMAL for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in state["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_chat_template(TEMPLATE)


def _add(writer: GGUFWriter, name: str, values: Any, form: str, config: Any, architecture: str) -> None:
    if architecture == "llama" and any(part in name for part in PERMUTED):
        heads = config.num_attention_heads if "attn_q" in name else config.num_key_value_heads
        values = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)
    if values.ndim < 2 or form == "F32":
        writer.add_tensor(name, np.ascontiguousarray(values))
    elif form == "F16":
        writer.add_tensor(name, values.astype(np.float16))
    else:
        kind = GGMLQuantizationType[form]
        writer.add_tensor(name, quantize(np.ascontiguousarray(values), kind), raw_dtype=kind)
