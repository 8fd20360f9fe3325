"""Minitron-style width: silent channels go first, exactness against zeroed channels, sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pat.checkpoints import checkpoint
from pat.errors import UserError
from pat.io.artefacts import read_json
from pat.models.masked import kept_channels_only
from pat.pruners.activations import channel_activations, samples
from pat.pruners.minitron_width import SAMPLES
from pat.pruners.pruning import prune
from tests.kit.pruning_inputs import calibration, write_base
from tests.kit.stock_models import reload
from tests.kit.tiny_models import CONFIGS, VOCABULARY, random_tokens, tiny_model

KEPT = 24


def prune_tiny(name: str, folder: Path, model: Any = None) -> tuple[Any, dict[str, Any]]:
    """Return the pruned model as stock transformers opens it, and the record."""
    write_base(name, folder / "base", model)
    record = prune(folder / "base", "minitron-width", 0.5, "auto", folder / "pruned", calibration(folder))
    return reload(folder / "pruned"), record


@pytest.mark.lengthy
@pytest.mark.parametrize("name", CONFIGS)
def test_pruned_equals_the_base_with_its_least_active_channels_at_zero(name: str, tmp_path: Path) -> None:
    stock, record = prune_tiny(name, tmp_path)
    oracle = reload(tmp_path / "base")
    activations = channel_activations(oracle, samples(tmp_path / "base", calibration(tmp_path), SAMPLES))
    kept = torch.zeros(48, dtype=torch.bool)
    kept[activations.argsort(descending=True)[:KEPT]] = True
    kept_channels_only(oracle, kept)
    tokens = random_tokens()
    with torch.no_grad():
        assert (oracle(input_ids=tokens).logits - stock(input_ids=tokens).logits).abs().max() <= 1e-4
    assert record["logit_gap"] <= 1e-4 and record["hidden_size"] == {"before": 48, "after": KEPT}
    assert record["ratio_requested"] == record["ratio_effective"] == 0.5
    assert stock.config.tie_word_embeddings == oracle.config.tie_word_embeddings
    assert read_json(tmp_path / "pruned" / "prune.json") == record


@pytest.mark.lengthy
@pytest.mark.parametrize("name", CONFIGS)
def test_channels_that_are_always_zero_go_first_and_nothing_changes(name: str, tmp_path: Path) -> None:
    model: Any = tiny_model(name)
    silent = torch.arange(48) % 2 == 1
    with torch.no_grad():
        model.get_input_embeddings().weight[:, silent] = 0.0
        for layer in model.model.layers:
            for write in (layer.self_attn.o_proj, layer.mlp.down_proj):
                write.weight[silent] = 0.0
                if write.bias is not None:
                    write.bias[silent] = 0.0
    stock, _ = prune_tiny(name, tmp_path, model)
    tokens = random_tokens()
    with torch.no_grad():
        assert (model(input_ids=tokens).logits - stock(input_ids=tokens).logits).abs().max() <= 1e-4


def test_the_number_of_parameters_by_formula(tmp_path: Path) -> None:
    """N = d'·[2V + L·((2n_q + 2n_kv)·h + 3f + 2) + 1], with V once where embedding and head are one."""
    layers = 3 * ((2 * 4 + 2 * 2) * 12 + 3 * 80 + 2) + 1
    for name, matrices in (("llama-grouped", 2), ("llama-grouped-tied", 1)):
        _, record = prune_tiny(name, tmp_path / name)
        assert record["parameters"]["after"]["unique"] == KEPT * (matrices * VOCABULARY + layers)


def test_refusals_come_before_the_model_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_base("llama", tmp_path / "base")
    monkeypatch.setattr(checkpoint, "load_to_measure", lambda *_: pytest.fail("measured before the width was checked"))
    with pytest.raises(UserError, match="align=64"):
        prune(tmp_path / "base", "minitron-width", 0.5, 64, tmp_path / "none", calibration(tmp_path))
    assert not (tmp_path / "none").exists()
