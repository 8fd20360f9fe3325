"""Configs that no model can be made of, found by the fields of config.json alone. No torch, and nothing of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from numbers import Real
from typing import Any, TypeGuard

Fields = Mapping[str, Any]
FLOATING = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""The dtypes of weights, as safetensors and as transformers call them."""
SIZES = ("vocab_size", "hidden_size", "intermediate_size", "ffn_dim", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
         "head_dim", "max_position_embeddings", "sliding_window")  # fmt: skip
LARGEST = 2**31 - 1
FEWEST_POSITIONS = 2
"""A token and the next one: there is nothing to predict in less."""
TOKEN_IDS = ("pad_token_id", "bos_token_id", "eos_token_id")
SWITCHES = ("tie_word_embeddings", "use_cache", "output_hidden_states", "output_attentions", "return_dict")
LARGEST_EPS = 1.0
"""An eps this large is all that is left of a norm."""
ROPE_BLOCKS = ("rope_parameters", "rope_scaling")
ROPE_NUMBERS = ("rope_theta", "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings", "beta_fast", "beta_slow")


def config_problems(fields: Fields) -> Iterator[str]:
    """Yield what no model can be made of."""
    if "model_type" not in fields:
        yield "has no `model_type`, so the architecture is not known"
    elif not isinstance(fields["model_type"], str):
        yield f"model_type: {fields['model_type']!r}: must be the name of an architecture"
    if fields.get("quantization_config") is not None:
        method = fields["quantization_config"]
        name = method.get("quant_method", "an unnamed method") if isinstance(method, Mapping) else method
        yield f"quantization_config: the weights are quantised ({name}); give the model in bf16, fp16 or fp32"
    for name in SIZES:
        value = fields.get(name)
        if name == "sliding_window" and value == 0 and fields.get("use_sliding_window") is False:
            continue  # none, as Qwen2-MoE writes it
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            yield f"{name}: {value!r}: must be a positive whole number"
        elif value is not None and value > LARGEST:
            yield f"{name}: {value}: is beyond every model"
    for name in ("dtype", "torch_dtype"):
        if (value := fields.get(name)) is not None and str(value).removeprefix("torch.") not in (*FLOATING.values(), "auto"):
            yield f"{name}: {value!r}: must be one of {', '.join(FLOATING.values())}"
    yield from _numbers_that_are_none("", fields)
    yield from _switch_problems(fields)
    yield from _range_problems(fields)
    yield from token_problems(fields, fields.get("vocab_size"))
    yield from _rope_problems(fields)
    yield from _position_problems(fields)


def _range_problems(fields: Fields) -> Iterator[str]:
    """Yield numbers beyond what they can be, and heads that do not share what they have to."""
    eps, dropout, positions = (fields.get(name) for name in ("rms_norm_eps", "attention_dropout", "max_position_embeddings"))
    if _is_number(eps) and not 0 < eps < LARGEST_EPS:
        yield f"rms_norm_eps: {eps}: must be a number between 0 and {LARGEST_EPS:g}"
    if _is_number(dropout) and not 0 <= dropout < 1:
        yield f"attention_dropout: {dropout}: must be a number from 0 to below 1"
    if _is_number(positions) and positions < FEWEST_POSITIONS:
        yield f"max_position_embeddings: {positions}: must be at least {FEWEST_POSITIONS}"
    hidden, heads, kv_heads = (fields.get(name) for name in ("hidden_size", "num_attention_heads", "num_key_value_heads"))
    if fields.get("head_dim") is None and _is_number(hidden) and _is_number(heads) and hidden % heads:
        yield f"num_attention_heads: {heads}: must divide hidden_size, which is {hidden}"
    if _is_number(heads) and _is_number(kv_heads) and heads % kv_heads:
        yield f"num_key_value_heads: {kv_heads}: must divide num_attention_heads, which is {heads}"


def _switch_problems(fields: Fields) -> Iterator[str]:
    """Yield switches that are neither on nor off, and the one that changes what a model returns."""
    for name in SWITCHES:
        if fields.get(name) is not None and not isinstance(fields[name], bool):
            yield f"{name}: {fields[name]!r}: must be true or false"
    if fields.get("return_dict") is False:
        yield "return_dict: false: the model would return its outputs without their names; set it to true, or remove it"


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, Real) and not isinstance(value, bool)


def _rope_problems(fields: Fields) -> Iterator[str]:
    """Yield numbers that positions cannot turn by, and two that contradict each other: transformers 5 would read one, 4.x the other."""
    blocks = [(f"{name}.", block) for name in ROPE_BLOCKS if isinstance(block := fields.get(name), Mapping)]
    for place, block in [("", fields), *blocks]:
        for name in ROPE_NUMBERS:
            value = block.get(name)
            if value is not None and (not _is_number(value) or value <= 0):
                yield f"{place}{name}: {value!r}: must be a number above 0"
    parameters = fields.get("rope_parameters")
    newer, older = (block.get("rope_theta") if isinstance(block, Mapping) else None for block in (parameters, fields))
    if newer is not None and older is not None and newer != older:
        yield f"rope_theta: {older!r} contradicts rope_parameters.rope_theta, {newer!r}; make them equal, or remove one"


def _numbers_that_are_none(place: str, value: object) -> Iterator[str]:
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{place}: is {value}: must be a number"
    elif isinstance(value, Mapping):
        for name, entry in value.items():
            yield from _numbers_that_are_none(f"{place}.{name}" if place else str(name), entry)


def token_problems(fields: Fields, vocabulary: int | None) -> Iterator[str]:
    """Yield the marks that no embedding row belongs to; −1 stands for none in old configs."""
    for name in TOKEN_IDS:
        value = fields.get(name)
        for token in value if isinstance(value, list) else [value]:
            if token is None:
                continue
            if isinstance(token, bool) or not isinstance(token, int):
                yield f"{name}: {token!r}: must be the id of a token"
            elif vocabulary is not None and not -1 <= token < vocabulary:
                yield f"{name}: {token}: lies beyond the vocabulary of {vocabulary} tokens"


def _position_problems(fields: Fields) -> Iterator[str]:
    """Yield positions that are computed from the longest text of a batch, for every text in it."""
    for name in ("rope_parameters", "rope_scaling"):
        parameters = fields.get(name)
        if parameters is None:
            continue
        if not isinstance(parameters, Mapping):
            yield f"{name}: {parameters!r}: must be an object"
            return
        kind = parameters.get("rope_type", parameters.get("type"))
        context = fields.get("max_position_embeddings")
        original = fields.get("original_max_position_embeddings", parameters.get("original_max_position_embeddings", context))
        if kind in ("longrope", "su") and context is not None and original is not None and context > original:
            yield (
                f"{name}: LongRoPE changes the positions of all texts of a batch as soon as one is longer than {original} tokens, so "
                f"results would depend on what else is in the batch; set max_position_embeddings to {original} to use the model up to there"
            )
