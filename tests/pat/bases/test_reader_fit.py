"""The constrained fit: exact on massive tokens, best on the others among what that leaves, the ridge by held-out text; and what is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pat.bases.reader_fit import RIDGE, RIDGES, Moments, fitted, map_of_reader, selection
from pat.bases.readers import fit_to_pruned
from pat.bases.refit import _told, refit_readers
from pat.data.calibration import Blocks
from tests.kit.pruning_inputs import WIDTH, calibration, write_base, write_text
from tests.kit.tied_inputs import OUTLIER, SINK, tied_model
from tests.kit.tiny_models import random_tokens

INDEX = torch.tensor([0, 1, 2, 3, 4, 5])


def moments_of(whole_ND: Tensor, kept_NK: Tensor) -> Moments:
    found = Moments.none(whole_ND.shape[1], kept_NK.shape[1], torch.device("cpu"))
    found.add(whole_ND, kept_NK)
    return found


def tokens(count: int, seed: int, size: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return what a norm hands on of 8 channels, and of the first 6 of them behind another denominator."""
    generator = torch.Generator().manual_seed(seed)
    mixing_DD = torch.randn(8, 8, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    whole_ND = size * torch.randn(count, 8, generator=generator, dtype=torch.float64) @ mixing_DD
    return whole_ND, whole_ND[:, INDEX] * (1 + 0.3 * torch.rand(count, 1, generator=generator, dtype=torch.float64))


def sink(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return massive tokens: one direction, each of another size, in which the dead channels say what no other token says."""
    generator = torch.Generator().manual_seed(seed)
    sizes_N1 = 20 + torch.rand(5, 1, generator=generator, dtype=torch.float64)
    whole_D = torch.tensor([1.0, 0.1, -0.2, 0.05, 0.3, 0.0, 0.7, -0.4], dtype=torch.float64)
    return sizes_N1 * whole_D, 1.1 * sizes_N1 * whole_D[INDEX]


@pytest.mark.parametrize("ridge", RIDGES)
def test_massive_tokens_are_read_exactly_whatever_the_ridge(ridge: float) -> None:
    whole_ND, kept_NK = sink()
    map_DK = map_of_reader(moments_of(*tokens(60, 1)), moments_of(whole_ND, kept_NK), INDEX, ridge)
    assert torch.allclose(kept_NK @ map_DK.T, whole_ND, rtol=1e-9, atol=1e-9)
    unconstrained = map_of_reader(moments_of(*tokens(60, 1)), moments_of(whole_ND[:0], kept_NK[:0]), INDEX, ridge)
    assert not torch.allclose(kept_NK @ unconstrained.T, whole_ND, rtol=1e-2)


def test_the_others_are_fitted_as_well_as_the_constraint_allows() -> None:
    """Against Lagrange's conditions: the stationary system of the loss with a multiplier a massive direction."""
    (whole_ND, kept_NK), (massive_ND, massive_NK) = tokens(60, 1), sink()
    plain_DK = selection(INDEX, 8)
    ordinary = moments_of(whole_ND, kept_NK)
    regular_KK = ordinary.kept_KK + torch.diag(RIDGE * ordinary.kept_KK.diagonal())
    direction_K1 = massive_NK[:1].T
    system = torch.cat([torch.cat([regular_KK, direction_K1], 1), torch.cat([direction_K1.T, torch.zeros(1, 1, dtype=torch.float64)], 1)])
    right = torch.cat([(ordinary.cross_DK - plain_DK @ ordinary.kept_KK).T, massive_ND[:1] - massive_NK[:1] @ plain_DK.T])
    expected_DK = plain_DK + torch.linalg.solve(system, right)[:6].T
    assert torch.allclose(map_of_reader(ordinary, moments_of(massive_ND, massive_NK), INDEX), expected_DK, rtol=1e-6, atol=1e-8)


def wide_tokens(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return what a norm passes on of 64 channels, and of 48 of them behind narrowed layers: near to it, and with an error of its own."""
    mixing_DD = torch.randn(64, 64, generator=torch.Generator().manual_seed(98), dtype=torch.float64) / 8
    drawn = (torch.randn(count, 64, generator=torch.Generator().manual_seed(seed + add), dtype=torch.float64) for add in (0, 1000))
    whole_ND = next(drawn) @ (mixing_DD + torch.eye(64, dtype=torch.float64))
    return whole_ND, (whole_ND + 0.1 * next(drawn))[:, :48]


def drifted_sinks(count: int, wobble: float) -> tuple[Tensor, Tensor]:
    """Return massive tokens behind narrowed layers: one direction, and around it noise that is not the same in the two streams."""
    generator = torch.Generator().manual_seed(5)
    whole_D = torch.zeros(64, dtype=torch.float64)
    whole_D[0], whole_D[40:] = 7.5, 0.5
    clean = (whole_D.expand(count, -1), 1.1 * whole_D[:48].expand(count, -1))
    one, other = (part + wobble * torch.randn(part.shape, generator=generator, dtype=torch.float64) for part in clean)
    return one, other


@pytest.mark.parametrize("wobble", [1e-3, 1e-2, 3e-2])
def test_what_the_massive_tokens_hardly_say_is_not_demanded_of_the_others(wobble: float) -> None:
    """Made exact there too, B was a ratio of two kinds of noise: SmolLM2, cut to three quarters, had a perplexity of 11,368 with it, not 44."""
    index_K = torch.arange(48)
    ordinary, held_out = moments_of(*wide_tokens(4000, 1)), moments_of(*wide_tokens(4000, 2))
    found, clean = (fitted(ordinary, moments_of(*drifted_sinks(40, size)), held_out, index_K) for size in (wobble, 0.0))
    assert found.held_out is not None and clean.held_out is not None and found.held_out_plain is not None
    assert found.held_out < 1.02 * clean.held_out < found.held_out_plain
    assert found.massive is not None and found.massive_plain is not None and found.massive < 3 * wobble**2 < 0.1 * found.massive_plain


def test_the_fit_is_the_float64_optimum_under_the_constraint() -> None:
    """Against a solver that knows of no moments: the constraint's direction is taken out of the unknowns, the rest is lstsq on all tokens."""
    ordinary, massive = wide_tokens(300, 1), drifted_sinks(30, 1e-3)
    none = moments_of(*(part[:0] for part in ordinary))
    found = fitted(moments_of(*ordinary), moments_of(*massive), none, torch.arange(48))
    whole_ND, kept_NK = (torch.cat([one, other]) for one, other in zip(ordinary, massive, strict=True))
    _, _, right_KK = torch.linalg.svd(massive[1])
    direction_K, free_FK = right_KK[0], right_KK[1:]
    along_N = massive[1] @ direction_K
    demanded_D = (massive[0] * along_N[:, None]).sum(0) / along_N.square().sum()
    left_ND = whole_ND - (kept_NK @ direction_K)[:, None] * demanded_D
    best_FD = torch.linalg.lstsq(kept_NK @ free_FK.T, left_ND).solution
    expected_DK = torch.outer(demanded_D, direction_K) + best_FD.T @ free_FK
    assert torch.allclose(found.map_DK, expected_DK, rtol=1e-3, atol=1e-4)


def test_the_errors_are_told_of_ordinary_massive_and_held_out_tokens() -> None:
    fit_to, massive, held_out = moments_of(*tokens(60, 1)), moments_of(*sink()), moments_of(*tokens(500, 2))
    found = fitted(fit_to, massive, held_out, INDEX)
    assert found.error < found.error_plain and found.massive_tokens == 5
    assert found.massive is not None and found.massive_plain is not None and found.massive <= 1e-12 and found.massive_plain > 0.1
    whole_ND, kept_NK = tokens(500, 2)
    expected = (whole_ND - kept_NK @ found.map_DK.T).square().sum() / whole_ND.square().sum()
    assert found.held_out == pytest.approx(float(expected)) and found.held_out_plain is not None


def test_without_massive_and_held_out_tokens_it_is_the_plain_fit() -> None:
    none = moments_of(*(part[:0] for part in tokens(1, 0)))
    ordinary = moments_of(*tokens(60, 1))
    found = fitted(ordinary, none, none, INDEX)
    assert torch.equal(found.map_DK, map_of_reader(ordinary, none, INDEX))
    assert found.massive is found.massive_plain is found.held_out is None


def test_a_models_massive_tokens_are_found_and_read_as_before() -> None:
    """The word SINK is huge in one channel: its tokens alone are massive, and behind the fit the first norm hands on what it did."""
    model: Any = tied_model("llama-grouped-tied")
    with torch.no_grad():
        model.model.embed_tokens.weight[SINK, OUTLIER] = 30.0
    ids_NT = random_tokens(8, 20, seed=4).clamp(min=SINK + 1)
    ids_NT[:, 0] = SINK
    text = Blocks(ids_NT, torch.ones_like(ids_NT))
    kept_D = torch.arange(WIDTH) < 36
    norm = "model.layers.0.input_layernorm"
    fit = fit_to_pruned(tied_model_like(model), text.batches(), kept_D, text.batches())[norm]
    assert fit.massive_tokens == 8 and fit.massive is not None and fit.massive <= 1e-8 < (fit.massive_plain or 0)
    assert fit.error < fit.error_plain


def tied_model_like(model: Any) -> Any:
    copy = tied_model("llama-grouped-tied")
    copy.load_state_dict(model.state_dict())
    return copy


def test_the_record_tells_the_effect_on_held_out_and_second_text(tmp_path: Path) -> None:
    write_base("llama-grouped", tmp_path / "base")
    second = write_text(tmp_path / "second.jsonl", seed=7)
    record = refit_readers(tmp_path / "base", "leading", 0.25, 4, calibration(tmp_path), tmp_path / "out", second_text=second)
    assert set(record["text"]) == {"calibration, held out", "second text"}
    for effect in record["text"].values():
        assert set(effect) == {"base", "plain", "least-squares", "tokens"} and effect["tokens"] > 0
    assert record["ridge"] in RIDGES and all("held out" in error for error in record["error"].values())
    assert "second_text" in record["provenance"]["inputs"]


def effect(plain: float, refitted: float) -> dict[str, float]:
    return {"base": 10.0, "plain": plain, "least-squares": refitted, "tokens": 100}


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [((20, 15), (20, 25), "helps on a and harms on b"), ((20, 15), (20, 15), None)],
)
def test_a_fit_that_harms_a_text_is_told(first: tuple[float, float], second: tuple[float, float], message: str | None) -> None:
    told = _told({"a": effect(*first), "b": effect(*second)})
    warnings = [sentence for sentence in told if sentence.startswith("warning")]
    assert len(told) - len(warnings) == 2 and ((message in warnings[0]) if message else not warnings)
