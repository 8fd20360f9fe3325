"""LLM-Pruner, uniform: what is left computes what the base computes with the dropped units silent; sizes, stock output, importance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig

from pat.checkpoints import checkpoint
from pat.errors import UserError
from pat.families.known import Kind, family_of
from pat.method.mask import largest
from pat.pruners.llm_pruner import measured_scores, silence
from pat.pruners.pruning import prune
from pat.pruners.units import units_of
from tests.kit.pruning_inputs import calibration, check_generates_and_takes_lora, divergence, write_base
from tests.kit.stock_models import reload
from tests.kit.tiny_models import CONFIGS, SHAPE, VOCABULARY, random_tokens, tiny_model


def prune_tiny(name: str, folder: Path, ratio: float = 0.5, model: Any = None) -> tuple[Any, dict[str, Any]]:
    """Return the pruned model as stock transformers opens it, and the record."""
    write_base(name, folder / "base", model)
    record = prune(folder / "base", "llm-pruner-uniform", ratio, "auto", folder / "pruned", calibration(folder))
    return reload(folder / "pruned"), record


def kept_in(folder: Path, record: dict[str, Any]) -> dict[Kind, list[Tensor]]:
    """Return which units the base in `folder` keeps."""
    config = checkpoint.load_config(folder / "base")
    units = units_of(folder / "base", family_of(config), config)
    scores = measured_scores(folder / "base", calibration(folder), units, range(config.num_hidden_layers))
    return {kind: [largest(score, record["units"][kind]["after"]) for score in scores[kind]] for kind in scores}


@pytest.mark.lengthy
@pytest.mark.parametrize("name", CONFIGS)
def test_pruned_equals_the_base_with_dropped_units_silent(name: str, tmp_path: Path) -> None:
    """With both attention kernels, without padding and with it on either side."""
    stock, record = prune_tiny(name, tmp_path)
    kept = kept_in(tmp_path, record)
    tokens, filled = random_tokens(2, 12, seed=5), torch.ones(2, 12, dtype=torch.long)
    left, right = filled.clone(), filled.clone()
    left[1, :4], right[1, 8:] = 0, 0
    for kernel in ("eager", "sdpa"):
        oracle = AutoModelForCausalLM.from_pretrained(tmp_path / "base", attn_implementation=kernel)
        silence(oracle, kept)
        stock.set_attn_implementation(kernel)
        for mask in (filled, left, right):
            with torch.no_grad():
                expected, found = (model(input_ids=tokens, attention_mask=mask).logits[mask.bool()] for model in (oracle, stock))
            assert (expected - found).abs().max() <= 1e-4
    assert record["logit_gap"] <= 1e-4
    assert stock.config.hidden_size == 48 and stock.config.tie_word_embeddings == oracle.config.tie_word_embeddings


@pytest.mark.lengthy
@pytest.mark.parametrize("name", CONFIGS)
def test_the_share_removed_is_the_one_asked_for(name: str, tmp_path: Path) -> None:
    stock, record = prune_tiny(name, tmp_path)
    config = checkpoint.load_config(tmp_path / "base")
    after = sum(parameter.numel() for parameter in stock.parameters())
    assert record["parameters"]["after"]["unique"] == after
    assert record["ratio_effective"] == 1 - after / record["parameters"]["before"]["unique"]
    one_neuron = 3 * (3 * 48 + 2) / record["parameters"]["before"]["unique"]
    assert 0.5 <= record["ratio_effective"] + 1e-12 <= 0.5 + one_neuron + 1e-12
    assert stock.config.num_attention_heads // stock.config.num_key_value_heads == config.num_attention_heads // config.num_key_value_heads
    if config.num_key_value_heads == 1:
        assert stock.config.num_attention_heads == config.num_attention_heads, "the only group stays: feed-forward alone"


def test_the_number_of_parameters_by_formula(tmp_path: Path) -> None:
    """Removed: L·[(2g + 2)·h·d·Δn_kv + 3·d·Δf]."""
    _, record = prune_tiny("llama-grouped", tmp_path)
    counts, units = record["parameters"], record["units"]
    fewer = {kind: units[kind]["before"] - units[kind]["after"] for kind in units}
    assert fewer["groups"] == 1 and fewer["neurons"] > 0
    expected = 3 * ((2 * 2 + 2) * 12 * 48 * fewer["groups"] + 3 * 48 * fewer["neurons"])
    assert counts["before"]["unique"] - counts["after"]["unique"] == expected
    assert counts["after"]["unique"] - counts["after"]["without_embeddings"] == 2 * VOCABULARY * 48


@pytest.mark.parametrize(("biases", "model_type", "heads"), [(False, "mistral", 5), (True, "llama", 6)])
def test_head_counts_that_the_own_config_refuses(biases: bool, model_type: str, heads: int, tmp_path: Path) -> None:
    shape = SHAPE | {"num_attention_heads": 8, "attention_bias": biases, "mlp_bias": biases}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        LlamaConfig(**shape, initializer_range=0.2, rope_parameters={"rope_theta": 500.0, "rope_type": "default"})
    )
    stock, record = prune_tiny("llama", tmp_path, 0.35, model)
    assert (stock.config.model_type, stock.config.num_attention_heads) == (model_type, heads)
    assert record["logit_gap"] <= 1e-4 and record["ratio_effective"] == pytest.approx(0.35, abs=0.01)
    tokenizers = [checkpoint.load_tokenizer(tmp_path / name) for name in ("base", "pruned")]
    assert type(tokenizers[0]) is type(tokenizers[1]) and tokenizers[0]("w5 w6")["input_ids"] == tokenizers[1]("w5 w6")["input_ids"] == [
        5,
        6,
    ]


def lost(folder: Path, kept: dict[Kind, list[Tensor]]) -> float:
    """Return how far the base without the dropped units is from it."""
    silenced = reload(folder / "base")
    silence(silenced, kept)
    return divergence(reload(folder / "base"), silenced)


def uneven_model(name: str) -> Any:
    """A model whose units matter to very different degrees, as trained ones do."""
    model: Any = tiny_model(name)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.down_proj.weight.mul_(torch.rand(80, generator=generator).pow(3) * 3)
            factors = torch.rand(model.config.num_key_value_heads, generator=generator).pow(3) * 3
            layer.self_attn.o_proj.weight.mul_(factors.repeat_interleave(layer.self_attn.o_proj.weight.shape[1] // len(factors)))
    return model


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_importance_beats_chance_and_more_removed_is_further_away(name: str, tmp_path: Path) -> None:
    write_base(name, tmp_path / "base", uneven_model(name))
    sizes = {"groups": checkpoint.load_config(tmp_path / "base").num_key_value_heads, "neurons": 80}
    far, by_chance = [], []
    for share in (0.0, 0.25, 0.5):
        units = {kind: {"after": round(count * (1 - share))} for kind, count in sizes.items()}
        kept = kept_in(tmp_path, {"units": units})
        far.append(lost(tmp_path, kept))
        for seed in range(3):
            generator = torch.Generator().manual_seed(seed)
            others = {kind: [largest(torch.rand(len(k), generator=generator), int(k.sum())) for k in kept[kind]] for kind in kept}
            by_chance.append(lost(tmp_path, others))
    assert far[0] == 0.0 and far == sorted(far)
    assert far[1] < min(by_chance[3:6]) and far[2] < min(by_chance[6:])


def test_generation_and_lora_on_the_pruned_model(tmp_path: Path) -> None:
    stock, _ = prune_tiny("llama-grouped", tmp_path)
    check_generates_and_takes_lora(stock)


def test_refusals(tmp_path: Path) -> None:
    write_base("llama", tmp_path / "base")
    with pytest.raises(UserError, match=r"ratio 0\.95: .*at most"):
        prune(tmp_path / "base", "llm-pruner-uniform", 0.95, "auto", tmp_path / "none", calibration(tmp_path))
    assert not (tmp_path / "none").exists()
