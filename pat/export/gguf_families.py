"""What llama.cpp calls each family, which keys of a GGUF file say what its config says, and what it has no place for.

One entry per model type. llama.cpp computes what an entry's architecture computes, whatever the config says beyond the keys; so whatever
else a config can say is compared here and refused with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from gguf import GGUFWriter, RopeScalingType
from numpy.typing import NDArray

from pat.errors import UserError
from pat.families.known import attention_window, head_size, norm_eps

Keys = Callable[[GGUFWriter, Any], None]
Obstacles = Callable[[Any], Iterator[str]]


@dataclass(frozen=True)
class Exported:
    """A family as llama.cpp knows it.

    `pairs` says that rows of queries and keys lie so that the two numbers that a rotation turns follow each other; transformers has them
    half a head apart. `window` says that it keeps a sliding window; without, it attends to everything. `biases` says that its linear
    layers may have them. `split` says that what is several layers in one becomes one tensor each.
    """

    architecture: str
    pairs: bool = False
    window: bool = False
    biases: bool = False
    split: bool = False
    activation: str = "silu"
    keys: Keys = lambda _writer, _config: None
    obstacles: Obstacles = lambda _: iter(())


def _granite_keys(writer: GGUFWriter, config: Any) -> None:
    writer.add_attention_scale(config.attention_multiplier)
    writer.add_embedding_scale(config.embedding_multiplier)
    writer.add_residual_scale(config.residual_multiplier)
    writer.add_logit_scale(config.logits_scaling)


def _gemma2_keys(writer: GGUFWriter, config: Any) -> None:
    writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
    writer.add_final_logit_softcapping(config.final_logit_softcapping)


def _gemma3_keys(writer: GGUFWriter, config: Any) -> None:
    writer.add_rope_freq_base_swa(config.rope_parameters["sliding_attention"]["rope_theta"])
    if config.final_logit_softcapping:
        writer.add_final_logit_softcapping(config.final_logit_softcapping)


def _tied_alone(config: Any) -> Iterator[str]:
    if not config.tie_word_embeddings:
        yield "has a head of its own, and llama.cpp takes the embedding for it"


def _gemma2_obstacles(config: Any) -> Iterator[str]:
    yield from _tied_alone(config)
    yield from _scale_obstacle(config)
    yield from _window_pattern(config, 2)
    if not (config.attn_logit_softcapping and config.final_logit_softcapping):
        yield "has logits without a cap (attn_logit_softcapping, final_logit_softcapping), which llama.cpp caps"


def _gemma3_obstacles(config: Any) -> Iterator[str]:
    yield from _scale_obstacle(config)
    yield from _window_pattern(config, 6)
    if config.attn_logit_softcapping:
        yield "caps its attention's logits (attn_logit_softcapping), which llama.cpp does not"


def _scale_obstacle(config: Any) -> Iterator[str]:
    if config.query_pre_attn_scalar != head_size(config):
        yield (
            f"scales attention by query_pre_attn_scalar={config.query_pre_attn_scalar}, and llama.cpp by what follows from the head size "
            f"({head_size(config)}) or from the hidden size"
        )


def _window_pattern(config: Any, step: int) -> Iterator[str]:
    pattern = ["full_attention" if (layer + 1) % step == 0 else "sliding_attention" for layer in range(config.num_hidden_layers)]
    if list(config.layer_types) != pattern:
        yield f"has other layers with a sliding window than llama.cpp, where each layer but every {step}th has one (layer_types)"


def _olmo2_obstacles(config: Any) -> Iterator[str]:
    if config.tie_word_embeddings:
        yield "has the embedding as its head, for which llama.cpp's has a matrix of its own"
    inner = config.num_attention_heads * head_size(config)
    if inner != config.hidden_size:
        yield f"has norms over all heads, {inner} numbers, for which llama.cpp's have the hidden size {config.hidden_size}"


def _phi3_obstacles(config: Any) -> Iterator[str]:
    if _rope(config).get("partial_rotary_factor", 1.0) != 1.0:
        yield "turns a part of each head alone (partial_rotary_factor), where llama.cpp's phi3 has no heads of another size than its width"


def _smollm3_obstacles(config: Any) -> Iterator[str]:
    turned = [int((layer + 1) % 4 != 0) for layer in range(config.num_hidden_layers)]
    if list(config.no_rope_layers) != turned:
        yield "has other layers without positions than llama.cpp, where every 4th has none (no_rope_layers)"


def _expert_keys(writer: GGUFWriter, config: Any) -> None:
    writer.add_expert_count(config.num_experts)
    writer.add_expert_used_count(config.num_experts_per_tok)
    writer.add_expert_feed_forward_length(config.moe_intermediate_size)


def _shared_expert_keys(writer: GGUFWriter, config: Any) -> None:
    _expert_keys(writer, config)
    writer.add_expert_shared_feed_forward_length(config.shared_expert_intermediate_size)


def _weights_sum_to_one(config: Any) -> Iterator[str]:
    if not config.norm_topk_prob:
        yield "leaves the weights of its experts as they are (norm_topk_prob: false), where llama.cpp scales them to a sum of 1"


def _weights_stay(config: Any) -> Iterator[str]:
    if config.norm_topk_prob:
        yield "scales the weights of its experts to a sum of 1 (norm_topk_prob: true), where llama.cpp leaves them as they are"
    if config.num_attention_heads * head_size(config) != config.hidden_size:
        yield "has heads of another size than hidden size / heads, as every narrower one has, which llama.cpp's qwen2moe does not"


TANH = "gelu_pytorch_tanh"
LLAMA = Exported("llama", pairs=True, biases=True)
EXPORTED: dict[str, Exported] = {
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": Exported("qwen2", biases=True),
    "qwen3": Exported("qwen3"),
    "gemma": Exported("gemma", activation=TANH, obstacles=_tied_alone),
    "gemma2": Exported("gemma2", activation=TANH, window=True, keys=_gemma2_keys, obstacles=_gemma2_obstacles),
    "gemma3_text": Exported("gemma3", activation=TANH, window=True, keys=_gemma3_keys, obstacles=_gemma3_obstacles),
    "olmo2": Exported("olmo2", obstacles=_olmo2_obstacles),
    "phi3": replace(LLAMA, split=True, obstacles=_phi3_obstacles),
    "granite": Exported("granite", pairs=True, biases=True, keys=_granite_keys),
    "qwen2_moe": Exported("qwen2moe", biases=True, keys=_shared_expert_keys, obstacles=_weights_stay),
    "qwen3_moe": Exported("qwen3moe", keys=_expert_keys, obstacles=_weights_sum_to_one),
    "smollm3": Exported("smollm3", pairs=True, obstacles=_smollm3_obstacles),
}
"""llama.cpp's own Phi-3 and Qwen2 take heads of no other size than hidden size / heads. Both are Llamas, Phi-3's fused layers being split,
so they go by that name; Qwen2 where it has to.
"""


def exported_as(config: Any) -> Exported:
    """Return what llama.cpp calls a model. Raises UserError where it computes something else, or pat cannot write it."""
    kind = config.model_type
    if kind not in EXPORTED:
        raise UserError(
            f"--to gguf: {kind!r} models are not written; those that are: {', '.join(EXPORTED)}. llama.cpp's own converter "
            "(convert_hf_to_gguf.py) may know it"
        )
    exported = EXPORTED[kind]
    if kind == "qwen2" and config.num_attention_heads * head_size(config) != config.hidden_size:
        exported = LLAMA
    problems = [*exported.obstacles(config), *_rope_obstacles(config)]
    activation = getattr(config, "hidden_activation", None) or config.hidden_act
    if activation != exported.activation:
        problems.append(f"has the activation {activation!r}, for which llama.cpp's {exported.architecture!r} has {exported.activation!r}")
    if problems:
        raise UserError(f"--to gguf: this {kind} model {'; and it '.join(problems)}; a GGUF file of it would compute something else")
    return exported


def _rope_obstacles(config: Any) -> Iterator[str]:
    kind = _rope(config).get("rope_type", "default")
    if kind not in ("default", "linear", "yarn", "llama3"):
        yield f"scales its positions by rope_type {kind!r}, which pat does not write into a GGUF file"


def _rope(config: Any) -> dict[str, Any]:
    """Return how positions turn; of a model with two kinds of layers, in those that attend to everything."""
    parameters: dict[str, Any] = config.rope_parameters
    full: dict[str, Any] = parameters.get("full_attention", parameters)
    return full


def add_sizes(writer: GGUFWriter, config: Any, exported: Exported) -> None:
    """Write the sizes and numbers of a config."""
    size, window = head_size(config), attention_window(config)
    attends = config.max_position_embeddings
    writer.add_context_length(attends if window is None or exported.window else min(attends, window))
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_layer_norm_rms_eps(norm_eps(config))
    writer.add_vocab_size(config.vocab_size)
    if exported.window:
        writer.add_sliding_window(window or 0)
    _add_positions(writer, config, size)
    exported.keys(writer, config)


def _add_positions(writer: GGUFWriter, config: Any, size: int) -> None:
    rope = _rope(config)
    writer.add_rope_dimension_count(int(size * rope.get("partial_rotary_factor", 1.0)))
    writer.add_rope_freq_base(rope["rope_theta"])
    kind = rope.get("rope_type", "default")
    if kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(RopeScalingType.LINEAR if kind == "linear" else RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
    if kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope.get("original_max_position_embeddings") or config.max_position_embeddings)
        for field, add in (
            ("attention_factor", writer.add_rope_scaling_yarn_attn_factor),
            ("beta_fast", writer.add_rope_scaling_yarn_beta_fast),
            ("beta_slow", writer.add_rope_scaling_yarn_beta_slow),
        ):
            if rope.get(field) is not None:
                add(rope[field])


def frequency_divisors(config: Any) -> NDArray[np.float32] | None:
    """Return what Llama 3's scaling divides each frequency by, (head size / 2,); None of other positions.

    The wavelengths up to original / high_freq_factor stay, those from original / low_freq_factor on grow by `factor`, and between both the
    frequency goes over linearly in original / wavelength.
    """
    rope = _rope(config)
    if rope.get("rope_type") != "llama3":
        return None
    size = head_size(config)
    frequencies = 1.0 / rope["rope_theta"] ** (np.arange(0, size, 2, dtype=np.float64) / size)
    turns = rope["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    share = np.clip((turns - low) / (high - low), 0.0, 1.0)
    divisors: NDArray[np.float64] = 1.0 / ((1.0 - share) / rope["factor"] + share)
    return divisors.astype(np.float32)


def in_pairs(rows: NDArray[Any], heads: int) -> NDArray[Any]:
    """Return rows of queries or keys, (heads · size, …), with the two halves of each head interleaved."""
    half = rows.shape[0] // heads // 2
    return rows.reshape(heads, 2, half, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)
