"""Sizes for a wanted share of parameters, by formula and at the shapes of real models; configs that stock classes take."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import LlamaConfig

from pat.families import FAMILIES
from pat.units import Kept, Kind, Units, config_without, matched, neuron_step

SHAPES = {  # hidden size, layers, query heads, key-value heads, head size, neurons, all parameters
    "llama-2-7b": (4096, 32, 32, 32, 128, 11008, 6_738_415_616),
    "llama-2-13b": (5120, 40, 40, 40, 128, 13824, 13_015_864_320),
    "gemma-2b": (2048, 18, 8, 1, 256, 16384, 2_506_172_416),
    "gemma-7b": (3072, 28, 16, 16, 256, 24576, 8_537_680_896),
    "yi-1.5-34b": (7168, 60, 56, 8, 128, 20480, 34_388_917_248),
}
EXPECTED = {
    "llama-2-7b": [(26, 8600), (24, 8088), (23, 7400)],
    "llama-2-13b": [(32, 10952), (30, 10232), (28, 9512)],
    "gemma-2b": [(1, 11848), (1, 10712), (1, 9584)],
    "gemma-7b": [(13, 18976), (12, 17664), (11, 16352)],
    "yi-1.5-34b": [(7, 15832), (6, 15176), (6, 13848)],
}


def units_of_shape(model: str) -> dict[Kind, Units]:
    hidden, layers, queries, groups, head, neurons, _ = SHAPES[model]
    shared = queries // groups
    return {"groups": Units(groups, layers * (2 * shared + 2) * head * hidden), "neurons": Units(neurons, layers * 3 * hidden)}


@pytest.mark.parametrize("model", SHAPES)
def test_sizes_at_the_shapes_of_real_models(model: str) -> None:
    units, parameters = units_of_shape(model), SHAPES[model][-1]
    for ratio, (groups, neurons) in zip((0.20, 0.25, 0.30), EXPECTED[model], strict=True):
        kept = matched(parameters, units, ratio, neuron_step(units["neurons"].count, "auto"), lambda _: True)
        assert kept == Kept(groups, neurons)
        fewer_groups, fewer_neurons = units["groups"].count - groups, units["neurons"].count - neurons
        removed = fewer_groups * units["groups"].parameters + fewer_neurons * units["neurons"].parameters
        assert ratio <= removed / parameters <= ratio + 3e-4


def test_what_cannot_be_removed_is_refused() -> None:
    with pytest.raises(ValueError, match=r"ratio 0\.9: .* at most \d\d\.\d%"):
        matched(SHAPES["gemma-2b"][-1], units_of_shape("gemma-2b"), 0.9, 8, lambda _: True)


@pytest.mark.parametrize(
    ("neurons", "align", "step"), [(11008, "auto", 8), (512, "auto", 8), (256, "auto", 4), (80, "auto", 1), (80, 16, 16)]
)
def test_the_step_of_a_feed_forward_width(neurons: int, align: int, step: int) -> None:
    assert neuron_step(neurons, align) == step


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
