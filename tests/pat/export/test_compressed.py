"""Linear layers in int8, int4 or fp8: what transformers computes with them is what their weights' nearest steps compute."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, CompressedTensorsConfig, LlamaConfig

from pat.checkpoints import checkpoint
from pat.checkpoints.base_checks import check_base
from pat.errors import UserError
from pat.export.export import export
from tests.kit.exported_models import SHAPE, random_model, write_base, write_narrow
from tests.kit.tiny_models import MORE
from tests.kit.tiny_world import tiny_tokenizer

pytest.importorskip("compressed_tensors")
SIZES = {"int8": 1.0, "int4": 0.5, "fp8": 1.0}
"""Bytes of a number in a linear layer."""


def rounded(weight: torch.Tensor, to: str) -> torch.Tensor:
    """Return a weight on the nearest steps, worked out by hand: 8 bits a row, 4 bits by 32 neighbours, or e4m3's numbers."""
    if to == "fp8":
        scale = weight.abs().amax(-1, keepdim=True) / 448
        return (weight / scale).to(torch.float8_e4m3fn).float() * scale
    half = 127.5 if to == "int8" else 7.5
    groups = weight if to == "int8" else weight.unflatten(-1, (-1, 32))
    scale = groups.abs().amax(-1, keepdim=True) / half
    return (torch.clamp(torch.round(groups / scale), -half - 0.5, half - 0.5) * scale).reshape(weight.shape)


@pytest.mark.parametrize("to", SIZES)
def test_the_weights_are_on_their_nearest_steps(tmp_path: Path, to: str) -> None:
    narrow = write_narrow(tmp_path, "llama-tied")
    record = export(narrow, to, tmp_path / "out")
    assert (record["compressed"], record["group_size"]) == (14, 32 if to == "int4" else None)
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "out", quantization_config=CompressedTensorsConfig(dequantize=True))
    for name, weight in checkpoint.tensors(narrow):
        linear = name.endswith("_proj.weight")
        torch.testing.assert_close(model.get_parameter(name).data, rounded(weight, to) if linear else weight, rtol=1e-5, atol=1e-6)
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.parametrize("to", SIZES)
def test_the_compressed_model_answers_as_before(tmp_path: Path, to: str) -> None:
    """Stock transformers opens it, nothing missing and nothing left over, and its words are nearly the model's own."""
    narrow = write_narrow(tmp_path, "qwen3-tied", dtype=torch.bfloat16)
    export(narrow, to, tmp_path / "out")
    loaded: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    model, report = loaded
    assert not any(report.values()), report
    tokens = torch.randint(3, 400, (2, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        true = checkpoint.load_model(narrow, torch.float32)(input_ids=tokens).logits.log_softmax(-1)
        found = model(input_ids=tokens).logits.float().log_softmax(-1)
    divergence = (true.exp() * (true - found)).sum(-1).mean().item()
    assert 0 < divergence < {"int8": 0.01, "int4": 0.5, "fp8": 0.05}[to]


def test_the_bytes_are_those_of_the_format(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", LlamaConfig(**SHAPE), dtype=torch.bfloat16)
    linear = sum(tensor.numel() for name, tensor in checkpoint.tensors(base) if name.endswith("_proj.weight"))
    rest = sum(2 * tensor.numel() for name, tensor in checkpoint.tensors(base) if not name.endswith("_proj.weight"))
    for to, size in SIZES.items():
        export(base, to, tmp_path / to)
        stored = load_file(tmp_path / to / "model.safetensors")
        held = sum(tensor.nbytes for name, tensor in stored.items() if name.endswith(("weight", "weight_packed")))
        assert held == rest + linear * size
        assert sum(tensor.nbytes for tensor in stored.values()) < held + linear * 0.15  # their steps


def test_the_config_says_what_was_done_and_the_rest_travels_along(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", LlamaConfig(**SHAPE))
    export(base, "int4", tmp_path / "out")
    fields = json.loads((tmp_path / "out" / "config.json").read_text())
    done = fields["quantization_config"]
    assert (done["quant_method"], done["format"], done["ignore"]) == ("compressed-tensors", "pack-quantized", ["lm_head"])
    assert done["config_groups"]["group_0"]["weights"]["group_size"] == 32
    assert fields["rope_theta"] == fields["rope_parameters"]["rope_theta"]
    assert checkpoint.open_tokenizer(tmp_path / "out")("12")["input_ids"] == tiny_tokenizer()("12")["input_ids"]
    with pytest.raises(UserError, match="the weights are quantised"):
        check_base(tmp_path / "out")


def test_a_larger_group_is_taken_where_it_divides_every_row(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", LlamaConfig(**SHAPE | {"intermediate_size": 256}))
    assert export(base, "int4", tmp_path / "out")["group_size"] == 128


def test_rows_that_no_group_divides_and_experts_are_refused(tmp_path: Path) -> None:
    narrow = write_narrow(tmp_path, "llama", ratio=0.3, align=4)
    with pytest.raises(UserError, match=r"rows of 88 are no multiple of 32, .*--align 32"):
        export(narrow, "int4", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert export(narrow, "int8", tmp_path / "out")["compressed"] == 14
    config: Any = MORE["qwen3-moe"]()
    config.vocab_size = SHAPE["vocab_size"]
    random_model(config).save_pretrained(tmp_path / "experts")
    tiny_tokenizer().save_pretrained(tmp_path / "experts")
    with pytest.raises(UserError, match="experts are not linear layers"):
        export(tmp_path / "experts", "int8", tmp_path / "never")
