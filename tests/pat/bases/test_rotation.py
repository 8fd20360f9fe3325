"""A change of basis changes no logit, for every family; and the checks themselves can fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from pat.bases.directions import principal
from pat.bases.rotation import Rotation, write_rotated
from pat.checkpoints import checkpoint
from pat.data.calibration import Blocks
from pat.families.known import family_of
from tests.kit.pruning_inputs import WIDTH, pca_basis, random_basis, shifted
from tests.kit.stock_models import reload
from tests.kit.tiny_models import CONFIGS, VOCABULARY, random_tokens

EXACT = 1e-4


def rotated(model: PreTrainedModel, folder: Path, basis_DD: Tensor) -> Any:
    model.save_pretrained(folder / "base")
    (folder / "rotated").mkdir()
    write_rotated(folder / "base", folder / "rotated", basis_DD)
    return reload(folder / "rotated")


def gap(one: Any, other: Any, **arguments: Tensor) -> float:
    arguments = arguments or {"input_ids": random_tokens(3, 12, seed=9)}
    with torch.no_grad():
        return float((one(**arguments).logits - other(**arguments).logits).abs().max())


@pytest.mark.parametrize("basis_DD", [torch.eye(WIDTH, dtype=torch.float64), random_basis()], ids=["folded", "rotated"])
@pytest.mark.parametrize("name", CONFIGS)
def test_logits_stay(name: str, basis_DD: Tensor, tmp_path: Path) -> None:
    model = shifted(name)
    stock = rotated(model, tmp_path, basis_DD)
    assert gap(model, stock) <= EXACT
    assert not stock.config.tie_word_embeddings and stock.config.model_type == model.config.model_type
    family = family_of(model.config)
    for norm in family.stream_norms(3):
        assert torch.all(stock.get_parameter(f"{norm}.weight") + family.gain_offset == 1.0)


@pytest.mark.parametrize("name", ["llama-grouped", "gemma-untied", "qwen2"])
def test_rotating_without_folding_the_norms_fails(name: str) -> None:
    """Guards the test above: gains must matter, or folding them would not be tested."""
    model, turned = shifted(name), shifted(name)
    family = family_of(model.config)
    neutral = {norm: torch.ones(WIDTH) for norm in family.stream_norms(3)}
    rotation = Rotation(family, random_basis(), neutral, tied=False)
    state = {pair[0]: pair[1] for item in model.state_dict().items() for pair in rotation(*item) if "layernorm" not in pair[0]}
    turned.load_state_dict(state, strict=False)
    assert gap(model, turned) > 100 * EXACT


@pytest.mark.parametrize("name", ["llama-grouped", "gemma"])
def test_a_mean_subtracted_by_mistake_fails(name: str) -> None:
    """Guards the shift: centring the embedding, which is right for LayerNorm alone, must be far outside the bound."""
    model = shifted(name)
    centred: Any = shifted(name)
    with torch.no_grad():
        embedding = centred.get_input_embeddings().weight
        embedding.sub_(embedding.mean(1, keepdim=True))
    assert gap(model, centred) > 100 * EXACT


def test_bf16_checkpoints_stay_bf16(tmp_path: Path) -> None:
    model: Any = shifted("llama-grouped")
    stock = rotated(model.to(torch.bfloat16), tmp_path, random_basis())
    assert {parameter.dtype for parameter in stock.parameters()} == {torch.bfloat16}


def batches(length: int = 20) -> list[dict[str, Tensor]]:
    tokens_NT = random_tokens(4, length, seed=2)
    return list(Blocks(tokens_NT, torch.ones_like(tokens_NT)).batches(2))


@pytest.mark.parametrize("name", ["llama-biases-odd-head", "gemma", "qwen3"])
def test_the_basis_is_orthonormal_and_ordered(name: str) -> None:
    basis = pca_basis(shifted(name), batches())
    eye = torch.eye(WIDTH, dtype=torch.float64)
    assert (basis.directions_DD.T @ basis.directions_DD - eye).abs().max() <= 1e-10
    assert torch.all(basis.importance_D.diff() <= 0)
    captured = [basis.captured(width) for width in range(1, WIDTH + 1)]
    assert captured == sorted(captured) and captured[-1] == pytest.approx(1.0)


def test_the_basis_is_that_of_the_normalised_stream() -> None:
    """By hand, from the stream that transformers itself reports: every norm's input over its RMS, all norms together."""
    model = shifted("llama-grouped")
    tokens = random_tokens(2, 20, seed=2)
    rows = []
    for norm in family_of(model.config).stream_norms(3):
        model.get_submodule(norm).register_forward_hook(lambda module, _inputs, output: rows.append(output / module.weight))
    with torch.no_grad():
        model(input_ids=tokens)
    stacked = torch.cat([part.flatten(0, 1) for part in rows]).double()
    assert len(rows) == 7
    found = pca_basis(shifted("llama-grouped"), [{"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}])
    expected = torch.linalg.svd(stacked, full_matrices=False)
    assert torch.allclose(found.importance_D, expected.S.square(), rtol=1e-4)
    assert torch.allclose((expected.Vh[:4] @ found.directions_DD[:, :4]).abs(), torch.eye(4, dtype=torch.float64), atol=1e-3)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_does_not_count(side: str) -> None:
    model = shifted("llama-grouped")
    tokens, filler = random_tokens(2, 12, seed=4), torch.zeros(2, 5, dtype=torch.long)
    plain = pca_basis(model, [{"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}])
    parts = [filler, tokens] if side == "left" else [tokens, filler]
    padded = torch.cat(parts, 1)
    mask = torch.cat([torch.full_like(part, int(part is tokens)) for part in parts], 1)
    assert torch.allclose(plain.importance_D, pca_basis(model, [{"input_ids": padded, "attention_mask": mask}]).importance_D, rtol=1e-4)


def test_equal_matrices_give_equal_directions() -> None:
    rows = torch.randn(60, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    one = principal(rows.T @ rows).directions_DD
    assert torch.equal(one, principal(rows.T @ rows).directions_DD)
    assert torch.all(one.gather(0, one.abs().argmax(0, keepdim=True)) > 0)


def test_a_tied_checkpoint_gains_a_head(tmp_path: Path) -> None:
    rotated(shifted("gemma"), tmp_path, random_basis())
    before, after = (checkpoint.tensor_shapes(tmp_path / name) for name in ("base", "rotated"))
    assert set(after) - set(before) == {"lm_head.weight"} and after["lm_head.weight"] == (VOCABULARY, WIDTH)
