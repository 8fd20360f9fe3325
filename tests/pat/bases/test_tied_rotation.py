"""A tied model stays tied under a change of basis: its logits but for the norms' denominators, its share exact, and mistakes show."""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle, product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

from pat.bases.rotate import rotate
from pat.bases.text_gap import said, text_gap
from pat.bases.tied_rotation import write_tied_rotated
from pat.bases.tied_scaling import Scaling, scale_denominators, tied_scaling
from pat.checkpoints import checkpoint
from pat.checkpoints.basis_record import check_basis, tie_of
from pat.checkpoints.merge import merge
from pat.data.calibration import Blocks, Calibration
from pat.errors import UserError
from pat.families.known import family_of
from pat.method.model import attach
from pat.pruners.pruning import prune
from pat.settings.config import PatConfig
from pat.settings.jobs import PruneSettings
from tests.kit.pruning_inputs import write_base, write_text
from tests.kit.stock_models import reload
from tests.kit.tied_inputs import MORE_TIED, NEGATIVE, OUTLIER, TIED, tied_model
from tests.kit.tiny_models import random_tokens, tiny_model

LARGEST_KL = 3e-4
"""A token, of models whose logits are of order one. What is left of the tie's error is below it, every mistake far above."""


def largest_kl(model: Any) -> float:
    """Return the bound for a model, some of which divide their logits: divergences are as their squares."""
    return LARGEST_KL / float(getattr(model.config, "logits_scaling", 1.0)) ** 2


def calibration(folder: Path) -> Calibration:
    return Calibration(write_text(folder / "text.jsonl", rows=400), tokens=1000)


def text(tokens: int = 12) -> Blocks:
    ids_NT = random_tokens(8, tokens, seed=4)
    return Blocks(ids_NT, torch.ones_like(ids_NT))


def divergence(model: Any, other: Any) -> float:
    with torch.no_grad():
        expected, found = (log_softmax(one(input_ids=random_tokens(6, 12, seed=9)).logits, -1).flatten(0, 1) for one in (model, other))
    return float(kl_div(found, expected, log_target=True, reduction="batchmean"))


@pytest.mark.lengthy
@pytest.mark.parametrize(
    ("name", "basis"), [*product(TIED, ["pca", "gradient"]), *zip(MORE_TIED, cycle(["pca", "gradient"]), strict=False)]
)
def test_a_tied_model_is_rotated_and_stays_tied(name: str, basis: str, tmp_path: Path) -> None:
    model = write_base(name, tmp_path / "base", tied_model(name))
    record = rotate(tmp_path / "base", basis, calibration(tmp_path), tmp_path / "rotated")
    rotated = reload(tmp_path / "rotated")
    assert rotated.config.tie_word_embeddings and rotated.get_input_embeddings().weight is rotated.get_output_embeddings().weight
    assert record["tie"] == tie_of(tmp_path / "rotated") == "kept"
    assert record["parameters"]["after"] == record["parameters"]["before"]
    assert divergence(model, rotated) <= largest_kl(model) and record["text"]["kl"] <= largest_kl(model)
    assert abs(record["text"]["perplexity_ratio"] - 1) <= 0.02 + 2 * record["text"]["perplexity_ratio_error"]
    assert record["logit_gap"] <= 1e-4, "but for the denominators it is exact"
    assert {NEGATIVE, OUTLIER} <= set(record["apart"])


@pytest.mark.parametrize("name", [*TIED, *MORE_TIED])
def test_channels_apart_lie_in_front_with_their_own_gains(name: str, tmp_path: Path) -> None:
    model = write_base(name, tmp_path / "base", tied_model(name))
    record = rotate(tmp_path / "base", "gradient", calibration(tmp_path), tmp_path / "rotated")
    rotated, family = reload(tmp_path / "rotated"), family_of(model.config)
    before_D, after_D = (one.get_parameter(f"{family.final_norm}.weight").detach() + family.gain_offset for one in (model, rotated))
    count = len(record["apart"])
    assert torch.allclose(after_D[:count] / before_D[record["apart"]], torch.ones(count), atol=0.05)
    assert torch.all(after_D[count:] == after_D[-1]), "a rotation needs one gain for all that it mixes"
    embedding_VD, turned_VD = (one.get_parameter(f"{family.embedding}.weight").detach() for one in (model, rotated))
    cosines = torch.cosine_similarity(embedding_VD[:, record["apart"]], turned_VD[:, :count], 0)
    assert torch.allclose(cosines, torch.ones(count), atol=1e-5)


@pytest.mark.parametrize("name", ["llama-grouped-tied", "gemma"])
def test_bf16_keeps_the_tie_as_well(name: str, tmp_path: Path) -> None:
    """The final gain is stored rounded: the scale follows it, so that no systematic error is left."""
    base: Any = tied_model(name)
    model = write_base(name, tmp_path / "base", base.to(torch.bfloat16))
    rotate(tmp_path / "base", "pca", calibration(tmp_path), tmp_path / "rotated")
    rotated: Any = reload(tmp_path / "rotated")
    assert rotated.dtype == torch.bfloat16
    assert divergence(model.float(), rotated.float()) <= LARGEST_KL


def test_the_stored_gain_is_one_that_the_dtype_holds_and_nothing_else_changes() -> None:
    model = tied_model("gemma")
    exact = tied_scaling(model, lambda: text().batches())
    stored = exact.stored_in(torch.bfloat16, 1.0)
    assert torch.equal((stored.gain_D - 1).bfloat16().double(), stored.gain_D - 1)
    for one in (exact, stored):  # γ = γ'·a² / correction is what the head must get
        head_D = one.gain_D * one.squares_D / one.corrections["model.norm"]
        assert torch.allclose(head_D, model.get_parameter("model.norm.weight").double() + 1)
    ratio_D = stored.squares_D[stored.rotated] / exact.squares_D[stored.rotated]
    assert torch.allclose(ratio_D, torch.full_like(ratio_D, (stored.corrections["model.norm"] / exact.corrections["model.norm"]) ** 2))


@pytest.mark.parametrize("mistake", ["wrong correction", "no own gain"])
@pytest.mark.parametrize("name", ["llama-grouped-tied", *MORE_TIED])
def test_mistakes_are_far_outside_the_bound(name: str, mistake: str, tmp_path: Path) -> None:
    """Guards the bound: each part of the recipe matters on these models."""
    model = write_base(name, tmp_path / "base", tied_model(name))
    scaling = tied_scaling(model, lambda: text().batches())
    directions_DD = torch.eye(48, dtype=torch.float64)[:, torch.cat([scaling.apart, scaling.rotated])]

    def turned(folder: str, of: Scaling) -> Any:
        (tmp_path / folder).mkdir()
        write_tied_rotated(tmp_path / "base", tmp_path / folder, directions_DD, of)
        return reload(tmp_path / folder)

    if mistake == "wrong correction":
        wrong = replace(scaling, corrections={norm: 1.2 * value for norm, value in scaling.corrections.items()})
    else:
        wrong = replace(scaling, gain_D=torch.full_like(scaling.gain_D, float(scaling.gain_D.median())))
    assert divergence(model, turned("right", scaling)) <= largest_kl(model)
    assert divergence(model, turned("wrong", wrong)) > 5 * largest_kl(model)


def test_the_denominators_error_is_what_it_says() -> None:
    """By hand: the ratio of both root mean squares at every norm, over all tokens."""
    model = tied_model("qwen2-tied")
    scaling = tied_scaling(model, lambda: text().batches())
    logs: dict[str, Tensor] = {}

    def note(norm: str) -> Any:
        def hook(_module: Any, inputs: Any) -> None:
            energy = inputs[0].flatten(0, 1).double().square()
            logs[norm] = 0.5 * ((energy @ scaling.squares_D) / energy.sum(1)).log() - torch.tensor(scaling.corrections[norm]).log()

        return hook

    for norm in scaling.corrections:
        model.get_submodule(norm).register_forward_pre_hook(note(norm))
    with torch.no_grad():
        model(input_ids=text().ids_NT)
    expected = torch.stack([errors.square().mean().sqrt() for errors in logs.values()]).mean()
    assert scaling.error == pytest.approx(float(expected), rel=1e-4)


def test_scaled_denominators_are_those_of_the_scaled_stream() -> None:
    model, scaled = tied_model("llama-grouped-tied"), tied_model("llama-grouped-tied")
    scaling = tied_scaling(model, lambda: text().batches())
    scale_denominators(scaled, scaling)
    x = torch.randn(2, 5, 48, generator=torch.Generator().manual_seed(0))
    for norm in ("model.layers.1.input_layernorm", "model.norm"):
        module = model.get_submodule(norm)
        expected = module(x * scaling.squares_D.sqrt().float()) / scaling.squares_D.sqrt().float() * scaling.corrections[norm]
        assert torch.allclose(scaled.get_submodule(norm)(x), expected, atol=1e-5)


def test_gains_of_every_sign_are_refused_with_advice(tmp_path: Path) -> None:
    write_base("llama-grouped-tied", tmp_path / "base", tiny_model("llama-grouped-tied"))
    with pytest.raises(UserError, match=r"gain of the final norm near or below zero.*tie: break"):
        rotate(tmp_path / "base", "pca", calibration(tmp_path), tmp_path / "rotated")
    record = rotate(tmp_path / "base", "pca", calibration(tmp_path), tmp_path / "rotated", tie="break")
    assert record["tie"] == "broken" and not reload(tmp_path / "rotated").config.tie_word_embeddings


def test_too_large_an_error_is_refused_with_advice(tmp_path: Path) -> None:
    base: Any = tied_model("llama-grouped-tied")
    with torch.no_grad():  # every gain far from every other: whatever stays out, the denominators are wrong
        base.model.norm.weight.copy_(torch.logspace(-0.25, 1.5, 48)[torch.randperm(48, generator=torch.Generator().manual_seed(2))])
        base.model.norm.weight.clamp_(min=0.3 * float(base.model.norm.weight.median()))
        base.model.embed_tokens.weight.mul_(4)
    write_base("llama-grouped-tied", tmp_path / "base", base)
    with pytest.raises(UserError, match=r"times what it was, more than 1\.02.*tie: break"):
        rotate(tmp_path / "base", "pca", calibration(tmp_path), tmp_path / "rotated")
    assert not (tmp_path / "rotated").exists()


@pytest.mark.lengthy
@pytest.mark.parametrize("name", [*TIED, *MORE_TIED])
def test_pat_in_a_tied_basis_removes_the_share_that_was_asked_for(name: str, tmp_path: Path) -> None:
    """Without any tuning: the leading half of a rotated model, cut by PAT's own merge."""
    write_base(name, tmp_path / "base", tied_model(name))
    rotate(tmp_path / "base", "gradient", calibration(tmp_path), tmp_path / "rotated")
    model = attach(
        checkpoint.load_model(tmp_path / "rotated"),
        PatConfig(pruning_ratio=0.5, hio_rank=0, basis="gradient", mask="leading", closing="at-once"),
    )
    model.save_pretrained(str(tmp_path / "adapter"), save_embedding_layers=False)
    record = merge(tmp_path / "rotated", tmp_path / "adapter", tmp_path / "merged")
    merged = reload(tmp_path / "merged")
    assert merged.config.tie_word_embeddings and merged.config.hidden_size == 24 and record["logit_gap"] <= 1e-4
    counts = record["parameters"]
    per_channel = (counts["before"]["unique"] - _inside(tmp_path / "base")) / 48
    assert counts["after"]["unique"] == counts["before"]["unique"] - 24 * per_channel, "every tensor on the stream is half as wide"


def _inside(folder: Path) -> int:
    """Return the parameters that no channel of the stream carries: biases of the readers and norms inside attention."""
    shapes, written = checkpoint.tensor_shapes(folder), ("o_proj.bias", "down_proj.bias")
    inside = (name for name in shapes if name.endswith((".bias", "q_norm.weight", "k_norm.weight")) and not name.endswith(written))
    return sum(shapes[name][0] for name in inside)


@pytest.mark.lengthy
@pytest.mark.parametrize("name", TIED)
def test_slicegpt_1q_keeps_the_tie(name: str, tmp_path: Path) -> None:
    write_base(name, tmp_path / "base", tied_model(name))
    record = prune(tmp_path / "base", "slicegpt-1q", 0.5, "auto", tmp_path / "pruned", calibration(tmp_path))
    pruned = reload(tmp_path / "pruned")
    assert pruned.config.tie_word_embeddings and record["tie"] == "kept" and record["logit_gap"] <= 1e-4
    assert record["text"]["kl"] <= LARGEST_KL
    own = PruneSettings(tie="break")
    broken = prune(tmp_path / "base", "slicegpt-1q", 0.5, "auto", tmp_path / "broken", calibration(tmp_path), own=own)
    assert broken["tie"] == "broken" and not reload(tmp_path / "broken").config.tie_word_embeddings
    assert broken["parameters"]["after"]["unique"] > record["parameters"]["after"]["unique"]


def test_channels_apart_are_kept_whatever_the_ratio(tmp_path: Path) -> None:
    """A cut to the leading directions keeps them, and one that is too narrow for them is refused."""
    base: Any = tied_model("qwen3-tied")
    with torch.no_grad():
        base.model.norm.weight[:4] = -1.0
    write_base("qwen3-tied", tmp_path / "base", base)
    with pytest.raises(UserError, match=r"fewer than the .* that are not rotated"):
        prune(tmp_path / "base", "slicegpt-1q", 0.95, 1, tmp_path / "pruned", calibration(tmp_path))


def test_a_base_of_the_other_tie_is_refused(tmp_path: Path) -> None:
    write_base("qwen2-tied", tmp_path / "base", tied_model("qwen2-tied"))
    rotate(tmp_path / "base", "pca", calibration(tmp_path), tmp_path / "kept")
    rotate(tmp_path / "base", "pca", calibration(tmp_path), tmp_path / "broken", tie="break")
    check_basis(tmp_path / "kept", "pca", "keep")
    check_basis(tmp_path / "broken", "pca", "break")
    with pytest.raises(UserError, match=r"was rotated with --tie keep, pat\.tie is 'break'"):
        check_basis(tmp_path / "kept", "pca", "break")
    with pytest.raises(UserError, match=r"was rotated with --tie break, pat\.tie is 'keep'"):
        check_basis(tmp_path / "broken", "pca", "keep")


def test_text_gap_against_the_definition() -> None:
    one, other = tied_model("llama-grouped-tied"), tied_model("gemma")
    blocks = text(10)
    blocks.mask_NT[-1, 6:] = 0
    found = text_gap(said(one, blocks), said(other, blocks))
    expected, losses = [], []
    for ids, mask in zip(blocks.ids_NT, blocks.mask_NT, strict=True):
        real = ids[: int(mask.sum())][None]
        with torch.no_grad():
            p, q = (log_softmax(model(input_ids=real).logits[0, :-1], -1) for model in (one, other))
        expected.append((p.exp() * (p - q)).sum(-1))
        losses.append((q - p).gather(1, real[0, 1:, None]))
    assert found["tokens"] == 7 * 9 + 5 and found["kl"] == pytest.approx(float(torch.cat(expected).mean()), rel=1e-4)
    assert found["perplexity_ratio"] == pytest.approx(float(torch.cat(losses).mean().neg().exp()), rel=1e-4)
