"""Wanda-sp: the score by hand, exactness against zeroed columns, sizes, stock output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pat.checkpoints import checkpoint
from pat.errors import UserError
from pat.families.known import family_of
from pat.io.artefacts import read_json
from pat.pruners.activations import samples
from pat.pruners.pruning import prune
from pat.pruners.units import units_of
from pat.pruners.wanda_sp import SAMPLES, unit_scores
from tests.kit.pruning_inputs import calibration, write_base
from tests.kit.stock_models import reload
from tests.kit.tiny_models import CONFIGS, random_tokens, tiny_model

BATCH = {"input_ids": random_tokens(3, 12, seed=1), "attention_mask": torch.ones(3, 12, dtype=torch.long)}


def prune_tiny(name: str, folder: Path, ratio: float = 0.4, model: Any = None) -> tuple[Any, dict[str, Any]]:
    """Return the pruned model as stock transformers opens it, and the record."""
    write_base(name, folder / "base", model)
    record = prune(folder / "base", "wanda-sp", ratio, "auto", folder / "pruned", calibration(folder))
    return reload(folder / "pruned"), record


@pytest.mark.parametrize("name", ["llama", "llama-grouped", "yi", "gemma"])
def test_the_score_by_hand(name: str, tmp_path: Path) -> None:
    """Column by column in plain loops, over the inputs that a second, stock run gives."""
    model: Any = write_base(name, tmp_path)
    config = model.config
    units = units_of(tmp_path, family_of(config), config)
    found = unit_scores(model, [BATCH], units)
    seen: dict[str, torch.Tensor] = {}
    for module in ("self_attn.o_proj", "mlp.down_proj"):
        model.model.layers[1].get_submodule(module).register_forward_pre_hook(
            lambda _m, inputs, module=module: seen.update({module: inputs[0].detach().double().flatten(0, 1)})
        )
    with torch.no_grad():
        model(**BATCH)
    for kind, module in (("groups", "self_attn.o_proj"), ("neurons", "mlp.down_proj")):
        weight = model.model.layers[1].get_submodule(module).weight.detach().double()
        columns = [sum(abs(value) for value in weight[:, j].tolist()) * float(seen[module][:, j].norm()) for j in range(weight.shape[1])]
        count = units[kind].count  # type: ignore[index]
        block = len(columns) // count
        expected = [sum(columns[unit * block : (unit + 1) * block]) for unit in range(count)]
        assert found[kind][1].tolist() == pytest.approx(expected, rel=1e-5)  # type: ignore[index]


@pytest.mark.lengthy
@pytest.mark.parametrize("name", CONFIGS)
def test_pruned_equals_the_base_with_the_lowest_units_columns_at_zero(name: str, tmp_path: Path) -> None:
    stock, record = prune_tiny(name, tmp_path)
    oracle: Any = reload(tmp_path / "base")
    units = units_of(tmp_path / "base", family_of(oracle.config), oracle.config)
    scores = unit_scores(oracle, samples(tmp_path / "base", calibration(tmp_path), SAMPLES), units)
    with torch.no_grad():
        for layer, block in enumerate(oracle.model.layers):
            for kind, linear in (("groups", block.self_attn.o_proj), ("neurons", block.mlp.down_proj)):
                score = scores[kind][layer]  # type: ignore[index]
                size = linear.weight.shape[1] // len(score)
                for unit in score.argsort()[: len(score) - record["units"][kind]["after"]].tolist():
                    linear.weight[:, unit * size : (unit + 1) * size] = 0.0
        tokens = random_tokens(2, 12, seed=5)
        assert (oracle(input_ids=tokens).logits - stock(input_ids=tokens).logits).abs().max() <= 1e-4
    assert record["logit_gap"] <= 1e-4
    assert read_json(tmp_path / "pruned" / "prune.json") == record


@pytest.mark.lengthy
@pytest.mark.parametrize("name", CONFIGS)
def test_the_share_removed_is_the_one_asked_for(name: str, tmp_path: Path) -> None:
    stock, record = prune_tiny(name, tmp_path)
    before, after = (sum(parameter.numel() for parameter in one.parameters()) for one in (reload(tmp_path / "base"), stock))
    assert record["ratio_requested"] == 0.4 and record["ratio_effective"] == 1 - after / before
    one_neuron_a_layer = 3 * (3 * 48 + 2) / before
    assert 0.4 <= record["ratio_effective"] + 1e-12 <= 0.4 + one_neuron_a_layer + 1e-12
    assert stock.config.hidden_size == 48


def test_silent_units_go_first(tmp_path: Path) -> None:
    """A head group and neurons whose columns are tiny are the ones removed: what is left computes what the base computes."""
    model: Any = tiny_model("llama-grouped")
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[:, 24:] *= 1e-7
            layer.mlp.down_proj.weight[:, 20:] *= 1e-7
    stock, record = prune_tiny("llama-grouped", tmp_path, 0.5, model)
    assert record["units"]["groups"]["after"] == 1 and 20 <= record["units"]["neurons"]["after"] < 40
    tokens = random_tokens(2, 12, seed=5)
    with torch.no_grad():
        assert (reload(tmp_path / "base")(input_ids=tokens).logits - stock(input_ids=tokens).logits).abs().max() <= 1e-4


def test_refusals_come_before_the_model_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_base("llama", tmp_path / "base")
    monkeypatch.setattr(checkpoint, "load_to_measure", lambda *_: pytest.fail("measured before the ratio was checked"))
    with pytest.raises(UserError, match=r"ratio 0\.95: .*at most"):
        prune(tmp_path / "base", "wanda-sp", 0.95, "auto", tmp_path / "none", calibration(tmp_path))
    assert not (tmp_path / "none").exists()
