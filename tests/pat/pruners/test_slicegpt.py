"""SliceGPT with a basis a block: exact at full width, equal to the model that loses the dropped directions, better than any other cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor

from pat.checkpoints import checkpoint
from pat.checkpoints.merge import merge
from pat.errors import UserError
from pat.families.known import family_of
from pat.models.sizes import slicing_of
from pat.pruners.pruning import prune
from pat.pruners.slicegpt import block_bases, calibration_batches, project_stream, write_sliced
from pat.settings.jobs import PruneSettings
from tests.kit.pruning_inputs import calibration, divergence, random_basis, shifted, write_base
from tests.kit.stock_models import reload
from tests.kit.tiny_models import CONFIGS, VOCABULARY, random_tokens

KEPT = 24
NOMINAL = PruneSettings(size="nominal")


def prune_tiny(name: str, folder: Path, ratio: float = 0.5, own: PruneSettings = NOMINAL) -> tuple[Any, Any, dict[str, Any]]:
    """Return the base, the reshaped model and the record."""
    model = write_base(name, folder / "base", shifted(name))
    record = prune(folder / "base", "slicegpt", ratio, "auto", folder / "pruned", calibration(folder), own=own)
    return model, reload(folder / "pruned"), record


def measured(folder: Path, width: int) -> list[Tensor]:
    """Return the bases of the base in `folder`, cut to `width`, and the last."""
    model = checkpoint.load_to_measure(folder / "base", "cpu")
    found = block_bases(model, calibration_batches(folder / "base", calibration(folder)), width)
    return [*(basis.directions_DD[:, :width] for basis in found), torch.eye(48, dtype=torch.float64)]


@pytest.mark.parametrize("name", CONFIGS)
def test_rotation_without_slicing_leaves_the_logits(name: str, tmp_path: Path) -> None:
    """A basis of its own for every block, shortcuts between them, embeddings with means far from zero."""
    model = write_base(name, tmp_path / "base", shifted(name))
    (tmp_path / "rotated").mkdir()
    last = torch.eye(48, dtype=torch.float64) if model.config.tie_word_embeddings else random_basis(6)
    write_sliced(tmp_path / "base", tmp_path / "rotated", [*(random_basis(seed) for seed in range(6)), last])
    tokens = random_tokens(3, 12, seed=5)
    with torch.no_grad():
        expected, found = model(input_ids=tokens).logits, reload(tmp_path / "rotated")(input_ids=tokens).logits
    assert (expected - found).abs().max() <= 1e-4 * max(1.0, float(expected.abs().max()))


@pytest.mark.lengthy
@pytest.mark.parametrize("name", CONFIGS)
def test_pruned_equals_the_model_without_the_dropped_directions(name: str, tmp_path: Path) -> None:
    """With padding on either side, and counted tensor by tensor."""
    model, sliced, record = prune_tiny(name, tmp_path)
    oracle = reload(tmp_path / "base")
    project_stream(oracle, measured(tmp_path, KEPT))
    tokens, filled = random_tokens(2, 12, seed=5), torch.ones(2, 12, dtype=torch.long)
    left, right = filled.clone(), filled.clone()
    left[1, :4], right[1, 8:] = 0, 0
    for mask in (filled, left, right):
        with torch.no_grad():
            expected, found = (one(input_ids=tokens, attention_mask=mask).logits[mask.bool()] for one in (oracle, sliced))
        assert (expected - found).abs().max() <= 1e-4 * max(1.0, float(expected.abs().max()))
    assert record["logit_gap"] <= 1e-4 * max(1.0, record["logit_size"])
    assert record["hidden_size"] == {"before": 48, "after": KEPT}
    tied = bool(model.config.tie_word_embeddings)
    assert (sliced.lm_head.weight is sliced.model.embed_tokens.weight) == tied
    before, after = (sum(parameter.numel() for parameter in one.parameters()) for one in (model, sliced))
    assert record["parameters"]["before"]["unique"] == before and record["parameters"]["after"]["unique"] == after
    shapes = {key: tuple(tensor.shape) for key, tensor in checkpoint.unique_tensors(tmp_path / "base", model.config)}
    assert after == slicing_of(shapes, family_of(model.config), 3, 48, tied=tied).parameters(KEPT)
    assert len(record["captured"]) == 6 and all(0 < share <= 1 for share in record["captured"])


def test_the_number_of_parameters_by_formula(tmp_path: Path) -> None:
    """N = V·d' + V·d + Σ_l [(2n_q + 2n_kv)·h·d' + 2f·d' + d'²] + Σ_{l<L} [f·d' + d'²] + (f·d + d'·d)."""
    _, _, record = prune_tiny("llama-grouped", tmp_path)
    layer = ((2 * 4 + 2 * 2) * 12 + 2 * 80 + KEPT) * KEPT
    expected = VOCABULARY * (KEPT + 48) + 3 * layer + 2 * (80 * KEPT + KEPT**2) + 80 * 48 + KEPT * 48
    assert record["parameters"]["after"]["unique"] == expected


@pytest.mark.parametrize("name", ["llama", "gemma"])
def test_matched_removes_what_was_asked_for(name: str, tmp_path: Path) -> None:
    _, _, record = prune_tiny(name, tmp_path, 0.25, PruneSettings())
    assert 0.25 <= record["ratio_effective"] <= 0.28


def test_bases_are_orthonormal_and_ordered(tmp_path: Path) -> None:
    write_base("llama", tmp_path / "base", shifted("llama"))
    model = checkpoint.load_to_measure(tmp_path / "base", "cpu")
    for basis in block_bases(model, calibration_batches(tmp_path / "base", calibration(tmp_path)), KEPT):
        directions, importance = basis.directions_DD, basis.importance_D
        assert (directions.T @ directions - torch.eye(48)).abs().max() <= 1e-10
        assert (importance.diff() <= 0).all()
        assert [basis.captured(width) for width in (12, 24, 48)] == sorted(basis.captured(width) for width in (12, 24, 48))


def lost(folder: Path, bases: list[Tensor]) -> float:
    """Return how far the base without the dropped directions is from it."""
    projected = reload(folder / "base")
    project_stream(projected, bases)
    return divergence(reload(folder / "base"), projected)


def test_less_kept_is_further_from_the_base_and_principal_directions_beat_random_ones(tmp_path: Path) -> None:
    write_base("llama-grouped", tmp_path / "base", shifted("llama-grouped"))
    far = [lost(tmp_path, measured(tmp_path, width)) for width in (48, 40, 32, 16)]
    assert far[0] <= 1e-5 and far == sorted(far)
    assert far[2] < min(lost(tmp_path, [random_basis(seed)[:, :32]] * 7) for seed in range(3))


@pytest.mark.parametrize("name", ["llama-grouped", "gemma"])
def test_generation_saving_and_tuning(name: str, tmp_path: Path) -> None:
    _, sliced, _ = prune_tiny(name, tmp_path)
    prompt = random_tokens(1, 6, seed=5)
    settings = {"max_new_tokens": 10, "do_sample": False, "eos_token_id": None}
    assert torch.equal(sliced.generate(prompt, use_cache=True, **settings), sliced.generate(prompt, use_cache=False, **settings))
    sliced.save_pretrained(tmp_path / "again")
    with torch.no_grad():
        assert torch.equal(reload(tmp_path / "again")(input_ids=prompt).logits, sliced(input_ids=prompt).logits)
    adapted: Any = get_peft_model(sliced, LoraConfig(r=4, target_modules=list(family_of(sliced.config).linears), task_type="CAUSAL_LM"))
    assert not any("shortcut" in name for name, parameter in adapted.named_parameters() if parameter.requires_grad)
    adapted.train()
    adapted.activation_checkpointing_enable()
    adapted(input_ids=prompt, labels=prompt).loss.backward()
    with torch.no_grad():
        for key, parameter in adapted.named_parameters():
            if "lora_B" in key:
                assert parameter.grad is not None and parameter.grad.any()
                parameter.normal_(std=0.05)
    adapted.eval().save_pretrained(tmp_path / "adapter")
    record = merge(tmp_path / "pruned", tmp_path / "adapter", tmp_path / "merged")
    with torch.no_grad():
        expected, found = adapted(input_ids=prompt).logits, reload(tmp_path / "merged")(input_ids=prompt).logits
    assert (expected - found).abs().max() <= 1e-4 * max(1.0, float(expected.abs().max()))
    assert record["hidden_size"] == {"before": KEPT, "after": KEPT} and record["ratio_effective"] == 0.0


def test_a_ratio_beyond_what_can_go_is_refused(tmp_path: Path) -> None:
    write_base("llama", tmp_path / "base")
    with pytest.raises(UserError, match=r"ratio 0\.99: .*at most"):
        prune(tmp_path / "base", "slicegpt", 0.99, "auto", tmp_path / "none", calibration(tmp_path))
