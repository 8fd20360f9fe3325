"""Merged models of every family in vLLM, as they are and compressed: they go on with the text that transformers goes on with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, CompressedTensorsConfig

from pat.export.export import export
from tests.kit.exported_models import CONFIGS, IN_VLLM_ALONE, PROMPT, UNNARROWED, write_merged, write_shallow
from tests.kit.runtimes import TOKENS, furthest_behind, greedy, needs, tokens_of, vllm

pytestmark = [pytest.mark.runtimes, needs("vllm")]
Note = Callable[[str, object], None]
CLOSE = 0.1
HEADS = "vLLM 0.32 takes hidden size / heads for the size of Qwen2's heads, whatever its config says"
NOT_YET = {"qwen2": HEADS, "qwen2-moe": HEADS}
CASES = [
    pytest.param(name, marks=pytest.mark.xfail(strict=True, reason=NOT_YET[name]) if name in NOT_YET else ())
    for name in (*CONFIGS, *IN_VLLM_ALONE)
    if name not in ("llama", "llama-linear")
]


@pytest.mark.parametrize("name", CASES)
def test_a_merged_model_goes_on_with_the_same_text(name: str, tmp_path: Path, record_property: Note) -> None:
    for key, value in {"runtime": "vLLM", "model": name, "format": "as merged"}.items():
        record_property(key, value)
    merged = write_merged(tmp_path, name)
    assert vllm(merged, PROMPT) == greedy(merged, PROMPT)


@pytest.mark.parametrize("name", UNNARROWED)
def test_a_model_with_fewer_layers_and_neurons_goes_on_with_the_same_text(name: str, tmp_path: Path, record_property: Note) -> None:
    for key, value in {"runtime": "vLLM", "model": name, "format": "as merged"}.items():
        record_property(key, value)
    merged = write_shallow(tmp_path, name)
    assert vllm(merged, PROMPT) == greedy(merged, PROMPT)


@pytest.mark.parametrize("name", NOT_YET)
def test_transformers_own_implementation_knows_the_heads_of_qwen2(name: str, tmp_path: Path, record_property: Note) -> None:
    for key, value in {"runtime": "vLLM", "model": f"{name}, --model-impl transformers", "format": "as merged"}.items():
        record_property(key, value)
    merged = write_merged(tmp_path, name)
    assert vllm(merged, PROMPT, implementation="transformers") == greedy(merged, PROMPT)


@pytest.mark.parametrize("to", ["int8", "int4", "fp8"])
def test_a_compressed_model_goes_on_as_in_transformers(to: str, tmp_path: Path, record_property: Note) -> None:
    """Both compute in bf16, in another order, and vLLM rounds activations: each token is next to the best one of the rounded weights."""
    for key, value in {"runtime": "vLLM", "model": "llama-tied", "format": to}.items():
        record_property(key, value)
    export(write_merged(tmp_path, "llama-tied"), to, tmp_path / "out")
    whole = CompressedTensorsConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32, quantization_config=whole)
    tokens = vllm(tmp_path / "out", PROMPT, "bfloat16")
    assert len(tokens) == TOKENS
    assert furthest_behind(model, tokens_of(tmp_path / "out", PROMPT), tokens) <= CLOSE
