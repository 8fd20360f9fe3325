"""Every kind of adapter that PEFT knows is folded as PEFT itself merges it, or refused by name; none is folded as something else."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, PeftType, get_peft_model
from safetensors.torch import load_file, save_file

from pat.checkpoints.merge import merge
from pat.errors import UserError
from pat.method.adapter_kinds import FIELDS_WITHOUT_EFFECT, FOLDED_FIELDS
from pat.method.lora import read_adapter
from tests.kit.stock_models import reload
from tests.kit.tiny_models import tiny_model

TARGETS = ["q_proj", "o_proj", "up_proj"]
FOLDED: dict[str, dict[str, Any]] = {
    "plain": {},
    "rank-stabilised": {"use_rslora": True},
    "DoRA": {"use_dora": True},
    "rank-stabilised DoRA": {"use_dora": True, "use_rslora": True},
    "ranks and alphas of their own": {
        "rank_pattern": {"layers.1.self_attn.q_proj": 5, "up_proj": 2}, "alpha_pattern": {"layers.0.mlp.up_proj": 32, "o_proj": 1},
    },
    "patterns and rank-stabilised": {"rank_pattern": {"up_proj": 2}, "alpha_pattern": {"q_proj": 3}, "use_rslora": True},
    "some layers": {"layers_to_transform": [0, 2]},
    "a pattern of names": {"target_modules": r".*layers\.[01]\.mlp\.(up|down)_proj"},
    "all linear layers": {"target_modules": "all-linear"},
    "gaussian start": {"init_lora_weights": "gaussian"},
    "orthogonal start": {"init_lora_weights": "orthogonal", "r": 4},
    "MiCA start": {"init_lora_weights": "mica"},
    "the head too": {"target_modules": [*TARGETS, "lm_head"]},
}  # fmt: skip


def write(folder: Path, **choices: Any) -> tuple[Path, Path]:
    """Write a base and a trained adapter on it; return both folders."""
    base = tiny_model("llama-grouped")
    base.save_pretrained(folder / "base")
    settings: dict[str, Any] = {"r": 3, "lora_alpha": 6, "target_modules": TARGETS, "task_type": "CAUSAL_LM"} | choices
    model = get_peft_model(base, LoraConfig(**settings))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(str(folder / "adapter"), save_embedding_layers=False)
    return folder / "base", folder / "adapter"


@pytest.mark.lengthy
@pytest.mark.parametrize("kind", FOLDED)
def test_what_is_folded_is_what_peft_merges(kind: str, tmp_path: Path) -> None:
    base, adapter = write(tmp_path, **FOLDED[kind])
    merge(base, adapter, tmp_path / "merged")
    wrapped: Any = PeftModel.from_pretrained(tiny_model("llama-grouped"), str(adapter))
    expected, found = wrapped.merge_and_unload().state_dict(), reload(tmp_path / "merged").state_dict()
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.allclose(tensor, found[name], atol=1e-6), name
    original = tiny_model("llama-grouped").state_dict()
    assert any(not torch.equal(original[name], tensor) for name, tensor in found.items())


def edit(adapter: Path, **changed: Any) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_4", "olora"])
def test_a_start_that_changed_the_base_is_refused(start: str, tmp_path: Path) -> None:
    base, adapter = write(tmp_path, init_lora_weights=start)
    with pytest.raises(UserError, match=rf"init_lora_weights: '{start}': this start changes the base's weights"):
        merge(base, adapter, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize("start", ["corda", "lora_ga", "a start of a later version"])
def test_a_start_that_needs_more_to_be_made_is_refused_too(start: str, tmp_path: Path) -> None:
    _, adapter = write(tmp_path)
    edit(adapter, init_lora_weights=start)
    with pytest.raises(UserError, match=r"init_lora_weights: .*this start changes the base's weights"):
        read_adapter(adapter)


def test_quantised_starts_are_refused(tmp_path: Path) -> None:
    _, adapter = write(tmp_path)
    edit(adapter, init_lora_weights="loftq", loftq_config={"loftq_bits": 4})
    with pytest.raises(UserError, match="init_lora_weights: 'loftq'"):
        read_adapter(adapter)


ODD: dict[str, Any] = {
    "bias": "all", "fan_in_fan_out": True, "modules_to_save": ["lm_head"], "trainable_token_indices": [1, 2], "layer_replication": [[0, 2], [1, 3]],
    "lora_bias": True, "target_parameters": ["mlp.gate"], "alora_invocation_tokens": [1], "use_qalora": True, "megatron_config": {"a": 1},
    "monteclora_config": {}, "use_bdlora": {}, "arrow_config": {}, "kasa_config": {},
}  # fmt: skip


def test_every_field_of_peft_s_is_accounted_for() -> None:
    unknown = {field.name for field in fields(LoraConfig)} - FOLDED_FIELDS - FIELDS_WITHOUT_EFFECT - set(ODD)
    assert not unknown, "refused whatever they are set to; a field that is new in PEFT gets its case here"


@pytest.mark.parametrize("field", ODD)
def test_a_field_that_is_not_folded_is_refused_by_name(field: str, tmp_path: Path) -> None:
    _, adapter = write(tmp_path)
    edit(adapter, **{field: ODD[field] or {"something": 1}})
    with pytest.raises(UserError, match=rf"{field}: set in a way that the merge does not fold"):
        read_adapter(adapter)


def test_a_field_of_a_later_version_is_refused_by_name(tmp_path: Path) -> None:
    _, adapter = write(tmp_path)
    edit(adapter, harmless_news=None)
    read_adapter(adapter)
    edit(adapter, use_superlora=True)
    with pytest.raises(UserError, match="use_superlora: set in a way that the merge does not fold"):
        read_adapter(adapter)


@pytest.mark.parametrize("kind", [kind.value for kind in PeftType if kind is not PeftType.LORA] + ["A_LATER_ONE", None])
def test_other_kinds_of_adapters_are_refused_by_name(kind: str | None, tmp_path: Path) -> None:
    _, adapter = write(tmp_path)
    edit(adapter, peft_type=kind)
    with pytest.raises(UserError, match=f"holds a {kind} adapter; only LoRA and DoRA can be folded"):
        read_adapter(adapter)


def test_a_module_that_the_file_lacks_is_told(tmp_path: Path) -> None:
    base, adapter = write(tmp_path)
    path = adapter / "adapter_model.safetensors"
    kept = {name: tensor for name, tensor in load_file(path).items() if "layers.1.mlp.up_proj" not in name}
    save_file(kept, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"holds nothing for model\.layers\.1\.mlp\.up_proj \(1 in all\)"):
        merge(base, adapter, tmp_path / "merged")


def test_a_magnitude_that_the_file_lacks_is_told(tmp_path: Path) -> None:
    base, adapter = write(tmp_path, use_dora=True)
    path = adapter / "adapter_model.safetensors"
    kept = {name: tensor for name, tensor in load_file(path).items() if "layers.1.mlp.up_proj.lora_magnitude" not in name}
    save_file(kept, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"up_proj: lacks a magnitude"):
        merge(base, adapter, tmp_path / "merged")
