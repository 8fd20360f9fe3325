"""LLM-Pruner's published window as a reshaped model: exact, saved and opened again, generating, tuned and merged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig

from pat.checkpoints import checkpoint
from pat.checkpoints.merge import merge
from pat.errors import UserError
from pat.families.known import family_of
from pat.models.sizes import Kept
from pat.pruners.llm_pruner import measured_scores, most_important, silence
from pat.pruners.pruning import prune
from pat.pruners.units import units_of
from pat.settings.jobs import PruneSettings
from tests.kit.pruning_inputs import calibration, write_base
from tests.kit.stock_models import reload
from tests.kit.tiny_models import CONFIGS, SHAPE, random_tokens

MIDDLE = PruneSettings(protect_first=1, protect_last=1)
INNER = range(1, 2)


def prune_tiny(name: str, folder: Path, ratio: float = 0.15, model: Any = None, own: PruneSettings = MIDDLE) -> tuple[Any, dict[str, Any]]:
    """Return the reshaped model and the record."""
    write_base(name, folder / "base", model)
    record = prune(folder / "base", "llm-pruner", ratio, "auto", folder / "pruned", calibration(folder), own=own)
    return reload(folder / "pruned"), record


@pytest.mark.lengthy
@pytest.mark.parametrize("name", CONFIGS)
def test_pruned_equals_the_base_with_dropped_units_silent(name: str, tmp_path: Path) -> None:
    """With both attention kernels, without padding and with it on either side."""
    reshaped, record = prune_tiny(name, tmp_path)
    config = checkpoint.load_config(tmp_path / "base")
    units = units_of(tmp_path / "base", family_of(config), config, INNER)
    sizes = Kept(record["units"]["groups"]["after"], record["units"]["neurons"]["after"])
    kept = most_important(sizes, measured_scores(tmp_path / "base", calibration(tmp_path), units, INNER), INNER)
    tokens, filled = random_tokens(2, 12, seed=5), torch.ones(2, 12, dtype=torch.long)
    left, right = filled.clone(), filled.clone()
    left[1, :4], right[1, 8:] = 0, 0
    for kernel in ("eager", "sdpa"):
        oracle = AutoModelForCausalLM.from_pretrained(tmp_path / "base", attn_implementation=kernel)
        silence(oracle, kept)
        reshaped.set_attn_implementation(kernel)
        for mask in (filled, left, right):
            with torch.no_grad():
                expected, found = (model(input_ids=tokens, attention_mask=mask).logits[mask.bool()] for model in (oracle, reshaped))
            assert (expected - found).abs().max() <= 1e-4
    assert record["logit_gap"] <= 1e-4
    assert [layer.mlp.down_proj.in_features for layer in reshaped.model.layers] == [80, sizes.neurons, 80]
    after = sum(parameter.numel() for parameter in reshaped.parameters())
    assert record["parameters"]["after"]["unique"] == after
    assert 0.15 <= record["ratio_effective"] + 1e-12 <= 0.15 + 3 * (48 + 1) / record["parameters"]["before"]["unique"]


def test_head_counts_that_the_own_config_refuses(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_config(LlamaConfig(**SHAPE | {"num_attention_heads": 8}, attention_bias=True, initializer_range=0.2))
    reshaped, record = prune_tiny("llama", tmp_path, 0.13, model)
    assert reshaped.config.layer_groups == [8, 5, 8] and record["logit_gap"] <= 1e-4


@pytest.mark.parametrize("name", ["llama-grouped", "gemma", "qwen3-tied"])
def test_saved_again_it_gives_the_same_logits(name: str, tmp_path: Path) -> None:
    reshaped, _ = prune_tiny(name, tmp_path)
    reshaped.save_pretrained(tmp_path / "again")
    tokens = random_tokens(2, 12, seed=5)
    with torch.no_grad():
        assert torch.equal(reload(tmp_path / "again")(input_ids=tokens).logits, reshaped(input_ids=tokens).logits)
    eager = AutoModelForCausalLM.from_pretrained(tmp_path / "pruned", attn_implementation="eager")
    assert eager.model.config._attn_implementation == "eager"
    assert reshaped.config.tie_word_embeddings == (reshaped.lm_head.weight is reshaped.model.embed_tokens.weight)


@pytest.mark.parametrize("name", ["llama-grouped", "gemma", "mistral", "qwen2"])
def test_generation_and_lora(name: str, tmp_path: Path) -> None:
    reshaped, _ = prune_tiny(name, tmp_path)
    prompt = random_tokens(1, 6, seed=5)
    settings = {"max_new_tokens": 10, "do_sample": False, "eos_token_id": None}
    assert torch.equal(reshaped.generate(prompt, use_cache=True, **settings), reshaped.generate(prompt, use_cache=False, **settings))
    with torch.no_grad():
        before = reshaped(input_ids=prompt).logits
        assert torch.allclose(reshaped(input_ids=prompt, logits_to_keep=2).logits, before[:, -2:], atol=1e-5)
    adapted = get_peft_model(reshaped, LoraConfig(r=4, target_modules=list(family_of(reshaped.config).linears), task_type="CAUSAL_LM"))
    adapted(input_ids=prompt, labels=prompt).loss.backward()
    merged: Any = adapted.merge_and_unload()
    with torch.no_grad():
        assert torch.equal(merged(input_ids=prompt).logits, before), "LoRA starts at zero"


def test_a_tuned_adapter_is_merged_into_a_reshaped_model(tmp_path: Path) -> None:
    reshaped, _ = prune_tiny("llama-grouped-tied", tmp_path)
    adapted: Any = get_peft_model(reshaped, LoraConfig(r=4, target_modules=list(family_of(reshaped.config).linears), task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    adapted.save_pretrained(tmp_path / "adapter")
    record = merge(tmp_path / "pruned", tmp_path / "adapter", tmp_path / "merged")
    merged, tokens = reload(tmp_path / "merged"), random_tokens(2, 12, seed=5)
    with torch.no_grad():
        assert (merged(input_ids=tokens).logits - adapted.eval()(input_ids=tokens).logits).abs().max() <= 1e-4
    assert record["ratio_effective"] == 0.0
    assert "import pat.reshaped" in (tmp_path / "merged" / "README.md").read_text()


def test_gradients_are_the_same_with_activations_computed_again(tmp_path: Path) -> None:
    reshaped, _ = prune_tiny("llama", tmp_path)
    tokens, found = random_tokens(2, 12, seed=5), []
    reshaped.train()
    for again in (False, True):
        if again:
            reshaped.activation_checkpointing_enable()
        reshaped.zero_grad()
        reshaped(input_ids=tokens, labels=tokens).loss.backward()
        found.append(reshaped.model.layers[0].mlp.up_proj.weight.grad.clone())
    assert torch.allclose(*found)


def test_importing_the_package_is_all_a_user_needs(tmp_path: Path) -> None:
    prune_tiny("llama", tmp_path)
    code = (
        "import pat.reshaped, transformers; "
        f"model = transformers.AutoModelForCausalLM.from_pretrained({str(tmp_path / 'pruned')!r}); print(type(model).__name__)"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "ReshapedForCausalLM"


def test_refusals(tmp_path: Path) -> None:
    prune_tiny("llama", tmp_path)
    with pytest.raises(UserError, match=r"pruned: is reshaped already"):
        prune(tmp_path / "pruned", "llm-pruner", 0.1, "auto", tmp_path / "none", calibration(tmp_path))
    with pytest.raises(UserError, match=r"protect_first 2 and protect_last 1: leave none of 3 layers"):
        everything = PruneSettings(protect_first=2, protect_last=1)
        prune(tmp_path / "base", "llm-pruner", 0.1, "auto", tmp_path / "none", calibration(tmp_path), own=everything)
    broken = json.loads((tmp_path / "pruned" / "config.json").read_text()) | {"layer_groups": [4]}
    (tmp_path / "pruned" / "manifest.json").unlink()
    (tmp_path / "pruned" / "config.json").write_text(json.dumps(broken))
    with pytest.raises(UserError, match=r"config\.json.*layer_groups has 1 entries: must have 3"):
        checkpoint.load_model(tmp_path / "pruned")
