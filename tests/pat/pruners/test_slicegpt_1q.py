"""SliceGPT with one rotation: stock, exact against the rotated model with its trailing directions at zero, better than any other cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pat.bases.directions import Basis
from pat.bases.rotation import write_rotated
from pat.checkpoints import checkpoint
from pat.checkpoints.merge import write_folded
from pat.data.calibration import Calibration
from pat.families.known import family_of
from pat.method.fold import Fold
from pat.models.masked import kept_channels_only
from pat.pruners.pruning import prune
from pat.pruners.slicegpt import calibration_batches
from pat.settings.jobs import PruneSettings
from tests.kit.pruning_inputs import calibration, check_generates_and_takes_lora, divergence, pca_basis, random_basis, shifted, write_base
from tests.kit.stock_models import reload
from tests.kit.tiny_models import CONFIGS, VOCABULARY, random_tokens

KEPT = 24


def measured_basis(source: Path, text: Calibration) -> Basis:
    return pca_basis(checkpoint.load_model(source), calibration_batches(source, text))


def prune_tiny(name: str, folder: Path) -> tuple[Any, Any, dict[str, Any]]:
    """Return the base, the pruned model as stock transformers opens it, and the record."""
    model = write_base(name, folder / "base", shifted(name))
    own = PruneSettings(tie="break")  # the tie that is kept has its own tests
    record = prune(folder / "base", "slicegpt-1q", 0.5, "auto", folder / "pruned", calibration(folder), own=own)
    return model, reload(folder / "pruned"), record


@pytest.mark.lengthy
@pytest.mark.parametrize("name", CONFIGS)
def test_pruned_equals_the_rotated_model_with_its_last_directions_at_zero(name: str, tmp_path: Path) -> None:
    _, stock, record = prune_tiny(name, tmp_path)
    (tmp_path / "rotated").mkdir()
    write_rotated(tmp_path / "base", tmp_path / "rotated", measured_basis(tmp_path / "base", calibration(tmp_path)).directions_DD)
    oracle = reload(tmp_path / "rotated")
    kept_channels_only(oracle, torch.arange(48) < KEPT)
    tokens = random_tokens(3, 12, seed=5)
    with torch.no_grad():
        expected, found = oracle(input_ids=tokens).logits, stock(input_ids=tokens).logits
    assert (expected - found).abs().max() <= 1e-5 * max(1.0, float(expected.abs().max()))
    assert record["logit_gap"] <= 1e-4 and record["rotation_gap"] <= 1e-4
    assert stock.config.hidden_size == KEPT and not stock.config.tie_word_embeddings
    assert not any(each.is_dir() for each in (tmp_path / "pruned").iterdir()), "the rotated copy is left over"


@pytest.mark.lengthy
@pytest.mark.parametrize("name", CONFIGS)
def test_the_record_counts_what_is_there(name: str, tmp_path: Path) -> None:
    model, stock, record = prune_tiny(name, tmp_path)
    before, after = (sum(parameter.numel() for parameter in one.parameters()) for one in (model, stock))
    assert record["parameters"]["before"]["unique"] == before and record["parameters"]["after"]["unique"] == after
    assert record["parameters"]["after"]["without_embeddings"] == after - 2 * VOCABULARY * KEPT
    assert 0 < record["captured"] <= 1


def test_the_number_of_parameters_by_formula(tmp_path: Path) -> None:
    """N = d'·[2V + L·((2n_q + 2n_kv)·h + 3f + 2) + 1]."""
    _, _, record = prune_tiny("llama-grouped", tmp_path)
    assert record["parameters"]["after"]["unique"] == KEPT * (2 * VOCABULARY + 3 * ((2 * 4 + 2 * 2) * 12 + 3 * 80 + 2) + 1)


def cut(source: Path, folder: Path, basis_DD: torch.Tensor, width: int) -> Any:
    """Return the model in a basis, cut to its leading directions."""
    for part in ("rotated", "cut"):
        (folder / part).mkdir(parents=True)
    write_rotated(source, folder / "rotated", basis_DD)
    family = family_of(reload(source).config)
    write_folded(folder / "rotated", folder / "cut", Fold(family, torch.arange(48) < width, tied=False), "prune")
    return reload(folder / "cut")


def test_less_kept_is_further_from_the_base_and_all_kept_is_the_base(tmp_path: Path) -> None:
    model = write_base("llama-grouped", tmp_path / "base", shifted("llama-grouped"))
    basis = measured_basis(tmp_path / "base", calibration(tmp_path))
    far = [divergence(model, cut(tmp_path / "base", tmp_path / str(width), basis.directions_DD, width)) for width in (48, 40, 32, 16)]
    assert far[0] <= 1e-5 and far == sorted(far)
    others = [divergence(model, cut(tmp_path / "base", tmp_path / f"r{seed}", random_basis(seed), 32)) for seed in range(3)]
    assert far[2] < min(others), "the principal directions must beat random ones"


def test_generation_and_lora_on_the_pruned_model(tmp_path: Path) -> None:
    _, stock, _ = prune_tiny("gemma", tmp_path)
    check_generates_and_takes_lora(stock)
