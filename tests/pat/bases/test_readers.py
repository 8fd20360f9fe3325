"""Readers refitted by least squares: the map against the textbook's, the folded model against one whose norms are hooked, the guards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import mse_loss

from pat.bases.reader_fit import RIDGE, RIDGES, Moments, map_of_reader
from pat.bases.readers import fit_to_pruned, fit_to_unpruned, folded, refit_in_place, write_refitted
from pat.data.calibration import Blocks
from pat.families.known import Role, family_of
from pat.models.masked import kept_channels_only
from tests.kit.pruning_inputs import WIDTH, write_base
from tests.kit.stock_models import reload
from tests.kit.tied_inputs import OUTLIER, SINK, tied_model
from tests.kit.tiny_models import CONFIGS, logits, random_tokens, tiny_model
from tests.kit.training import random_text

EXACT = 1e-4
KEPT_D = torch.arange(WIDTH) % 4 != 1
"""Every fourth channel is dead: neither the first nor the last ones alone."""


def masked(model: Any) -> Any:
    kept_channels_only(model, KEPT_D)
    return model


def hooked(model: Any, maps_DK: dict[str, Tensor]) -> Any:
    """Return a model whose norms hand on B·n_kept instead of n, from the definition alone."""

    def mapped(map_DK: Tensor) -> Any:
        return lambda _norm, _inputs, output_BTD: torch.einsum("dk,btk->btd", map_DK.float(), output_BTD[:, :, KEPT_D])

    for norm, map_DK in maps_DK.items():
        model.get_submodule(norm).register_forward_hook(mapped(map_DK))
    return model


def none(whole_ND: Tensor, kept_NK: Tensor) -> Moments:
    return Moments.none(whole_ND.shape[1], kept_NK.shape[1], torch.device("cpu"))


def moments_of(whole_ND: Tensor, kept_NK: Tensor) -> Moments:
    found = none(whole_ND, kept_NK)
    found.add(whole_ND, kept_NK)
    return found


@given(st.integers(0, 10_000), st.integers(1, 5))
def test_the_map_is_the_textbooks(seed: int, dead: int) -> None:
    """Against the solution of the stacked system: rows of text, then rows that hold the change from plain reading near zero."""
    generator = torch.Generator().manual_seed(seed)
    mixing_DD = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    whole_ND = torch.randn(40, 6, generator=generator, dtype=torch.float64) @ mixing_DD
    index_K = torch.randperm(6, generator=generator)[dead:].sort().values
    kept_NK = whole_ND[:, index_K] * (0.5 + torch.rand(40, 1, generator=generator, dtype=torch.float64))
    found_DK = map_of_reader(moments_of(whole_ND, kept_NK), none(whole_ND, kept_NK), index_K)

    plain_DK = torch.zeros(6, len(index_K), dtype=torch.float64)
    plain_DK[index_K, torch.arange(len(index_K))] = 1.0
    held_KK = torch.diag((RIDGE * kept_NK.square().sum(0)).sqrt())
    stacked = torch.cat([kept_NK, held_KK])
    wanted = torch.cat([whole_ND - kept_NK @ plain_DK.T, torch.zeros(len(index_K), 6, dtype=torch.float64)])
    assert torch.allclose(found_DK, plain_DK + torch.linalg.lstsq(stacked, wanted).solution.T, rtol=1e-6, atol=1e-8)


def test_by_hand_a_dead_channel_that_copies_a_living_one_is_read_from_it() -> None:
    """n = (a, 2a, b), channel 1 dead: its reader has to take twice channel 0; a and b are uncorrelated."""
    kept_NK = torch.tensor([[1.0, 1.0], [1.0, -1.0], [2.0, 0.0]], dtype=torch.float64)
    whole_ND = torch.stack([kept_NK[:, 0], 2 * kept_NK[:, 0], kept_NK[:, 1]], 1)
    map_DK = map_of_reader(moments_of(whole_ND, kept_NK), none(whole_ND, kept_NK), torch.tensor([0, 2]))
    expected = torch.tensor([[1.0, 0.0], [2.0 / (1 + RIDGE), 0.0], [0.0, 1.0]], dtype=torch.float64)
    assert torch.allclose(map_DK, expected, rtol=1e-12)
    weight_OD = torch.tensor([[1.0, 10.0, 100.0]])
    assert torch.allclose(folded(weight_OD, map_DK, torch.tensor([0, 2])), torch.tensor([[21.0, 0.0, 100.0]]), rtol=1e-3)


def test_a_silent_channel_is_no_obstacle() -> None:
    kept_NK = torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]], dtype=torch.float64)
    whole_ND = torch.stack([kept_NK[:, 0], -kept_NK[:, 0], kept_NK[:, 1]], 1)
    map_DK = map_of_reader(moments_of(whole_ND, kept_NK), none(whole_ND, kept_NK), torch.tensor([0, 2]))
    assert torch.allclose(map_DK, torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]], dtype=torch.float64), atol=1e-5)


@pytest.mark.parametrize("name", ["llama-biases-odd-head", "gemma-untied", "qwen3"])
def test_with_nothing_dropped_nothing_changes(name: str) -> None:
    model = tiny_model(name)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    fits = fit_to_pruned(model, random_text().batches(), torch.ones(WIDTH, dtype=torch.bool))
    assert len(fits) == 7 and all(torch.equal(fit.map_DK, torch.eye(WIDTH, dtype=torch.float64)) for fit in fits.values())
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
    assert all(fit.error == fit.error_plain for fit in fits.values())


@pytest.mark.parametrize("name", ["llama", "gemma-untied", "llama-grouped-tied"])
def test_fitting_to_the_pruned_stream_leaves_embedding_and_head_as_they_are(name: str) -> None:
    """The last fit is the head's, which whoever measures the model applies: twice it would be another model."""
    model = tiny_model(name)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    fits = fit_to_pruned(model, random_text().batches(), KEPT_D)
    assert ("model.norm" in fits) is (not model.config.tie_word_embeddings)
    changed = {key for key, tensor in model.state_dict().items() if not torch.equal(before[key], tensor)}
    assert changed and all(".layers." in key for key in changed)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_checkpoint_computes_what_hooked_norms_do(name: str, tmp_path: Path) -> None:
    """Masked: a stock model whose dead channels are zero and whose norms' outputs go through B; and no dead column is read."""
    write_base(name, tmp_path / "base")
    (tmp_path / "refitted").mkdir()
    fits = fit_to_pruned(tiny_model(name), random_text().batches(), KEPT_D)
    write_refitted(tmp_path / "base", tmp_path / "refitted", fits, KEPT_D)
    tokens = random_tokens(3, 12, seed=9)
    stock = reload(tmp_path / "refitted")
    tied = stock.config.tie_word_embeddings
    assert tied == tiny_model(name).config.tie_word_embeddings and len(fits) == (6 if tied else 7)
    by_hooks = masked(hooked(tiny_model(name), {norm: fit.map_DK for norm, fit in fits.items()}))
    assert (logits(by_hooks, tokens) - logits(masked(stock), tokens)).abs().max() <= EXACT
    family, untouched = family_of(stock.config), tiny_model(name).state_dict()
    for key, tensor in stock.state_dict().items():
        if family.role(key) in (Role.READ, Role.HEAD) and key.endswith(".weight") and not (tied and key == "lm_head.weight"):
            assert not tensor[:, ~KEPT_D].any() and tensor[:, KEPT_D].any()
        else:
            assert torch.equal(tensor, untouched[key])


@pytest.mark.parametrize("name", ["llama-grouped", "gemma", "qwen2"])
def test_each_map_is_the_best_one_for_the_model_that_is_refitted_before_it(name: str) -> None:
    """From outputs that hooks record: the whole model's, and those of a masked model whose earlier norms are mapped already."""
    text = random_text()
    fits = fit_to_pruned(tiny_model(name), text.batches(), KEPT_D)
    maps_DK: dict[str, Tensor] = {}
    for norm, fit in fits.items():
        whole_ND, kept_ND = (outputs(model, norm, text) for model in (tiny_model(name), masked(hooked(tiny_model(name), maps_DK))))
        kept_NK = kept_ND[:, KEPT_D]
        best = mse_loss(kept_NK @ torch.linalg.lstsq(kept_NK, whole_ND).solution, whole_ND)
        found = mse_loss(kept_NK @ fit.map_DK.T, whole_ND)
        assert best <= found <= 1.001 * best
        assert fit.error == pytest.approx((found / whole_ND.square().mean()).item(), rel=1e-3)
        plain = torch.where(KEPT_D, whole_ND - kept_ND, whole_ND).square().mean() / whole_ND.square().mean()
        assert fit.error < fit.error_plain == pytest.approx(plain.item(), rel=1e-3)
        maps_DK[norm] = fit.map_DK


@pytest.mark.parametrize("name", ["llama-grouped-tied", "gemma", "olmo2"])
def test_on_the_unpruned_stream_each_map_is_the_best_one_whatever_the_others_are(name: str) -> None:
    """Against lstsq on what hooks record of one whole model: every site's input, and what its norm makes of it without the dead channels."""
    text = random_text()
    model = tiny_model(name)
    family = family_of(model.config)
    *inside, last = family.sites(model.config.num_hidden_layers)
    sites = inside if model.config.tie_word_embeddings else [*inside, last]
    seen: dict[str, Tensor] = {}
    for site in sites:
        watched = model.get_submodule(site.norm or site.readers[0])
        watched.register_forward_pre_hook(lambda _m, inputs, site=site: seen.update({site.name: inputs[0]}))
    with torch.no_grad():
        model(input_ids=text.ids_NT, attention_mask=text.mask_NT)
        [fits] = fit_to_unpruned(tiny_model(name), text.batches(), KEPT_D, ridges=[RIDGE]).values()
        assert fits.keys() == {site.name for site in sites}
        for site in sites:
            norm = torch.nn.Identity() if site.norm is None else tiny_model(name).get_submodule(site.norm)
            x_ND = seen[site.name][text.mask_NT.bool()]
            whole_ND, kept_NK = norm(x_ND).double(), norm(x_ND * KEPT_D).double()[:, KEPT_D]
            best = mse_loss(kept_NK @ torch.linalg.lstsq(kept_NK, whole_ND).solution, whole_ND)
            assert best <= mse_loss(kept_NK @ fits[site.name].map_DK.T, whole_ND) <= 1.001 * best


@pytest.mark.parametrize("name", CONFIGS)
def test_fits_of_all_ridges_in_one_pass_are_those_of_a_pass_each_to_the_last_bit(name: str) -> None:
    """And the model is the same behind them, so that whoever folds them in begins with the base."""
    model, text = tiny_model(name), random_text()
    together = fit_to_unpruned(model, text.batches(2), KEPT_D, text.batches())
    assert all(
        torch.equal(one, other) for one, other in zip(model.state_dict().values(), tiny_model(name).state_dict().values(), strict=True)
    )
    assert list(together) == list(RIDGES)
    for ridge, fits in together.items():
        [alone] = fit_to_unpruned(tiny_model(name), text.batches(2), KEPT_D, text.batches(), [ridge]).values()
        assert fits.keys() == alone.keys() and all(torch.equal(fits[site].map_DK, alone[site].map_DK) for site in fits)
        assert all(replace(fits[site], map_DK=KEPT_D) == replace(alone[site], map_DK=KEPT_D) for site in fits)
    one, other = together.values()
    assert not any(torch.equal(one[site].map_DK, other[site].map_DK) for site in one)


@pytest.mark.parametrize("name", CONFIGS)
def test_readers_refitted_in_place_are_those_that_are_written(name: str, tmp_path: Path) -> None:
    write_base(name, tmp_path / "base")
    (tmp_path / "refitted").mkdir()
    model: Any = tiny_model(name)
    [fits] = fit_to_unpruned(model, random_text().batches(), KEPT_D, ridges=[RIDGE]).values()
    refit_in_place(model, fits, KEPT_D)
    write_refitted(tmp_path / "base", tmp_path / "refitted", fits, KEPT_D)
    stored = reload(tmp_path / "refitted").state_dict()
    assert all(torch.equal(tensor, stored[key]) for key, tensor in model.state_dict().items() if key != "lm_head.weight")


def test_a_fit_takes_one_pass_over_each_stream_that_it_needs() -> None:
    """Blocks counted: those of the unpruned stream serve all ridges, and of what is noted beforehand a forward pass serves all equal masks."""
    runs = dict[int, int]()

    def blocks(fit: Callable[..., object]) -> int:
        model: Any = tiny_model("llama")
        runs.clear()
        for place, layer in enumerate(model.model.layers):
            layer.mlp.register_forward_hook(lambda *_given, place=place: runs.update({place: runs.get(place, 0) + 1}))
        fit(model, Blocks(ids_NT, torch.ones_like(ids_NT)).batches(2), KEPT_D)
        assert len(set(runs.values())) == 1
        return runs[0]

    ids_NT, noted = random_tokens(8, 12, seed=2), 1
    assert blocks(fit_to_unpruned) == noted + 4
    assert blocks(fit_to_pruned) == noted + 2 * 4


def test_with_little_text_what_is_fitted_to_the_unpruned_stream_carries_over_better() -> None:
    """Four tokens a channel: each fit in the order of the computation trusts a stream that is truer on its own text than on other."""
    few, other = (text_of_rows(rows, seed) for rows, seed in ((8, 1), (30, 2)))
    expected = logits(sunk_model(), other.ids_NT)
    kept_D = torch.arange(WIDTH) < 36
    unpruned, pruned = sunk_model(), sunk_model()
    fits = fit_to_unpruned(unpruned, few.batches(), kept_D, ridges=[RIDGE])[RIDGE]
    refit_in_place(unpruned, fits, kept_D)
    left: dict[str, float] = {}
    for seen, model, found in (("unpruned", unpruned, fits), ("pruned", pruned, fit_to_pruned(pruned, few.batches(), kept_D))):
        kept_channels_only(model, kept_D)
        left[seen] = float(mse_loss(logits(model, other.ids_NT), expected))
        assert all(fit.massive is None or fit.massive <= 1e-6 for fit in found.values())
    plain = sunk_model()
    kept_channels_only(plain, kept_D)
    assert left["unpruned"] < min(0.7 * left["pruned"], float(mse_loss(logits(plain, other.ids_NT), expected)))


def sunk_model() -> Any:
    """Return a tied model whose channels matter less and less, and where one word's energy lies in one channel."""
    model: Any = tied_model("llama-grouped-tied")
    falling_D = torch.linspace(1.5, 0.3, WIDTH)
    with torch.no_grad():
        embedding_VD = model.model.embed_tokens.weight
        embedding_VD.mul_(falling_D)
        embedding_VD[SINK, OUTLIER] = 30.0
        for layer in model.model.layers:
            for write in (layer.self_attn.o_proj, layer.mlp.down_proj):
                write.weight.mul_(falling_D[:, None])
    return model


def text_of_rows(rows: int, seed: int) -> Blocks:
    """Return rows that begin with the word of huge energy, as text begins with an attention sink."""
    ids_NT = random_tokens(rows, 20, seed=seed).clamp(min=SINK + 1)
    ids_NT[:, 0] = SINK
    return Blocks(ids_NT, torch.ones_like(ids_NT))


def outputs(model: Any, norm: str, text: Any) -> Tensor:
    """Return what a norm hands on of all real tokens, (N, D) in fp64."""
    found: list[Tensor] = []
    model.get_submodule(norm).register_forward_hook(lambda _module, _inputs, output: found.append(output.double()))
    with torch.no_grad():
        model(input_ids=text.ids_NT, attention_mask=text.mask_NT)
    return found[0][text.mask_NT.bool()]


@pytest.mark.parametrize("name", ["llama-grouped", "gemma", "mistral", "qwen3-tied"])
def test_a_masked_model_is_nearer_to_the_whole_one_than_with_plain_readers(name: str) -> None:
    text = random_text()
    tokens = text.ids_NT[:-1]  # the last one is padded
    refitted = tiny_model(name)
    fits = fit_to_pruned(refitted, text.batches(), KEPT_D)
    if not refitted.config.tie_word_embeddings:
        hooked(refitted, {"model.norm": fits["model.norm"].map_DK})  # the head alone is not refitted in place
    expected, plain, found = (logits(model, tokens) for model in (tiny_model(name), masked(tiny_model(name)), masked(refitted)))
    assert mse_loss(found, expected) < 0.9 * mse_loss(plain, expected)
