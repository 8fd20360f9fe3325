"""`pat refit-readers`: the channels that tuning keeps, a base that tuning and merging take, and the guards around bases that do not fit."""

from __future__ import annotations

import gc
import weakref
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pat import PatConfig, attach
from pat.bases import reader_fit
from pat.bases.reader_fit import RIDGES
from pat.bases.refit import _tried, refit_readers
from pat.bases.rotate import rotate
from pat.checkpoints import checkpoint, stored
from pat.checkpoints.basis_record import basis_of
from pat.checkpoints.merge import merge
from pat.checkpoints.readers_record import HELD_OUT, check_readers, kept_channels, readers_of
from pat.data.calibration import Calibration
from pat.errors import UserError
from pat.io.artefacts import check_folder, read_json
from pat.training.tuning import tune
from tests.kit.pairs import all_pairs
from tests.kit.pruning_inputs import calibration, write_base, write_text
from tests.kit.stock_models import reload
from tests.kit.tiny_models import random_tokens, tiny_model
from tests.kit.tiny_world import write_world
from tests.kit.training import random_text
from tests.kit.tuning_requests import asked, twelve_steps

REFITTED: dict[str, Any] = {"mask": "leading", "readers": "least-squares", "hio_rank": 0}


@pytest.mark.parametrize("name", ["llama-grouped-tied", "gemma-untied"])
def test_a_refitted_model_is_stock_and_says_what_it_is(name: str, tmp_path: Path) -> None:
    write_base(name, tmp_path / "base")
    record = refit_readers(tmp_path / "base", "leading", 0.25, 4, calibration(tmp_path), tmp_path / "refitted")
    check_folder(tmp_path / "refitted")
    assert record == read_json(tmp_path / "refitted" / "readers.json")
    assert record["kept"] == kept_channels(tmp_path / "refitted") == list(range(36))
    assert record["tokens"] == 200, "as many as were asked for, of more text"
    assert (record["hidden_size"], record["ratio_effective"]) == ({"before": 48, "after": 48}, 0.0)
    assert record["parameters"]["before"] == record["parameters"]["after"] and record["logit_gap"] <= 1e-4
    assert all(error["least-squares"] < error["plain"] for error in record["error"].values())
    ways = {(way["seen"], way["ridge"]): way["perplexity"] for way in record["tried"]}
    assert list(ways) == list(product(("unpruned", "pruned"), RIDGES))
    assert record["best_perplexity"] == min(ways.values())
    assert (record["seen"], record["ridge"]) == (min(ways, key=lambda way: ways[way]) if record["applied"] else (None, None))
    assert readers_of(tmp_path / "refitted") == "least-squares" and readers_of(tmp_path / "base") == "plain"
    assert reload(tmp_path / "refitted").config.hidden_size == 48


def test_the_ridges_that_are_named_are_tried_and_told_of_both_texts(tmp_path: Path) -> None:
    """One so large that nothing is fitted is plain reading, but for what the exact fit of massive tokens asks."""
    write_base("llama", tmp_path / "base")
    second = write_text(tmp_path / "second.jsonl", seed=7)
    record = refit_readers(
        tmp_path / "base", "leading", 0.25, 4, calibration(tmp_path), tmp_path / "out", second_text=second, ridges=(1e-4, 1e6)
    )
    assert [(way["seen"], way["ridge"]) for way in record["tried"]] == list(product(("unpruned", "pruned"), (1e-4, 1e6)))
    assert all(way["second_text"] > 1 for way in record["tried"]) and len({way["second_text"] for way in record["tried"]}) > 1
    plain = record["text"]["calibration, held out"]["plain"]
    fitted, unfitted = record["tried"][0]["perplexity"], record["tried"][1]["perplexity"]
    assert unfitted == pytest.approx(plain, rel=1e-3) and abs(fitted - plain) > 10 * abs(unfitted - plain)
    assert record["provenance"]["settings"]["ridges"] == [1e-4, 1e6]


@pytest.mark.parametrize(
    ("name", "seen", "ridge"), all_pairs(["llama", "gemma-untied", "llama-grouped-tied", "qwen3-moe"], ["unpruned", "pruned"], RIDGES)
)
def test_a_fit_is_judged_by_what_the_written_model_says(
    name: str, seen: str, ridge: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of the ways to fit, taken as if it were the best; the written model is loaded and cut anew."""
    take, way = _tried, list(product(("unpruned", "pruned"), RIDGES)).index((seen, ridge))
    monkeypatch.setattr("pat.bases.refit._tried", lambda *given: list(take(*given))[way : way + 1])
    monkeypatch.setattr("pat.bases.refit.helps", lambda *_given: True)
    write_base(name, tmp_path / "base")
    record = refit_readers(tmp_path / "base", "leading", 0.25, 4, calibration(tmp_path), tmp_path / "refitted")
    assert (record["seen"], record["ridge"]) == (seen, ridge)
    assert record["best_perplexity"] == pytest.approx(record["text"]["calibration, held out"]["least-squares"], rel=1e-5)


def test_readers_stay_plain_where_every_fit_harms_the_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_base("llama", tmp_path / "base")
    monkeypatch.setattr("pat.bases.refit._perplexities_when_cut", lambda *_given: {HELD_OUT: 1e6})
    record = refit_readers(tmp_path / "base", "leading", 0.25, 4, calibration(tmp_path), tmp_path / "refitted")
    assert (record["applied"], record["ridge"], record["seen"]) == (False, None, None) and record["best_perplexity"] == 1e6
    one, other = (dict(stored_weights(tmp_path / name)) for name in ("base", "refitted"))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert record["text"]["calibration, held out"]["plain"] == record["text"]["calibration, held out"]["least-squares"]
    assert kept_channels(tmp_path / "refitted") == list(range(36))


def test_one_model_is_in_memory_at_a_time_and_no_more_than_two_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second model may find no room on a GPU, and the maps of a fit, which are in fp64, take more than the model."""
    models, maps, most = list[weakref.ref[Any]](), list[weakref.ref[Any]](), 0
    load, fit = checkpoint.load_to_measure, reader_fit.fitted

    def loaded(folder: Path, device: str) -> Any:
        gc.collect()
        assert all(one() is None for one in models)
        model = load(folder, device)
        models.append(weakref.ref(model))
        return model

    def fitted(*given: Any) -> Any:
        nonlocal most
        found = fit(*given)
        maps.append(weakref.ref(found))
        most = max(most, sum(one() is not None for one in maps))
        return found

    write_base("llama", tmp_path / "base")
    monkeypatch.setattr(checkpoint, "load_to_measure", loaded)
    monkeypatch.setattr("pat.bases.readers.fitted", fitted)
    record = refit_readers(tmp_path / "base", "leading", 0.25, 4, calibration(tmp_path), tmp_path / "refitted")
    sites, ways = len(record["error"]), len(record["tried"])
    assert len(models) > ways and len(maps) == ways * sites and most == 2 * sites


def stored_weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for path in stored.shard_files(folder) for name, tensor in load_file(path).items()}


def test_equal_inputs_give_equal_bytes(tmp_path: Path) -> None:
    write_base("llama", tmp_path / "base")
    for name in ("one", "other"):
        refit_readers(tmp_path / "base", "magnitude", 0.25, 4, calibration(tmp_path), tmp_path / name)
    one, other = (path.read_bytes() for name in ("one", "other") for path in stored.shard_files(tmp_path / name))
    assert one == other


@pytest.mark.lengthy
@pytest.mark.parametrize("mask", ["frozen", "leading", "variance", "fisher", "magnitude", "random"])
def test_the_channels_are_those_that_plain_tuning_keeps(mask: str, tmp_path: Path) -> None:
    """And a mask over the refitted base keeps them too, although what is measured on that base may say otherwise."""
    base, data = write_world(tmp_path)
    refit_readers(base, mask, 0.5, 1, Calibration(data, tokens=400, seed=3), tmp_path / "refitted", data)
    for folder, readers in ((base, "plain"), (tmp_path / "refitted", "least-squares")):
        settings = twelve_steps(mask=mask, readers=readers, hio_rank=0, closing="at-once", align=1)
        tune(asked(folder, data, "pat", 0.5, 3, settings, tmp_path / "run", tmp_path / readers))
    plain, refitted = (checkpoint_mask(tmp_path / name) for name in ("plain", "least-squares"))
    assert plain == refitted == kept_channels(tmp_path / "refitted")


def checkpoint_mask(adapter: Path) -> list[int]:
    kept: list[int] = load_file(adapter / "hsm.safetensors")["mask.kept"].nonzero().flatten().tolist()
    return kept


@pytest.mark.lengthy
@pytest.mark.parametrize("closing", ["gradual", "at-once"])
@pytest.mark.parametrize(("tuner", "hio_rank"), [("pat", 0), ("pat", 2), ("pat-dora", 0)])
def test_pat_tunes_and_merges_on_refitted_readers(tuner: str, hio_rank: int, closing: str, tmp_path: Path) -> None:
    base, data = write_world(tmp_path)
    text = Calibration(data, tokens=400)
    rotate(base, "gradient", text, tmp_path / "rotated")
    refit_readers(tmp_path / "rotated", "leading", 0.5, 1, text, tmp_path / "refitted")
    assert basis_of(tmp_path / "refitted") == "gradient"
    settings = twelve_steps(**REFITTED | {"hio_rank": hio_rank, "closing": closing, "basis": "gradient", "align": 1})
    tune(asked(tmp_path / "refitted", data, tuner, 0.5, 0, settings, tmp_path / "run", tmp_path / "adapter"))
    record = merge(tmp_path / "refitted", tmp_path / "adapter", tmp_path / "merged")
    assert record["hidden_size"] == {"before": 32, "after": 16} and record["logit_gap"] <= 1e-4
    assert reload(tmp_path / "merged").config.hidden_size == 16
    with pytest.raises(UserError, match=r"its readers are plain, pat\.readers is 'least-squares'"):
        merge(tmp_path / "rotated", tmp_path / "adapter", tmp_path / "wrong")


def test_a_base_for_other_readers_is_refused_before_tuning(tmp_path: Path) -> None:
    base, data = write_world(tmp_path)
    refitted, adapter = tmp_path / "refitted", tmp_path / "adapter"
    with pytest.raises(UserError, match=r"what `pat refit-readers --mask leading --ratio 0\.5` makes of it"):
        tune(asked(base, data, "pat", 0.5, 0, twelve_steps(**REFITTED), tmp_path / "run", adapter))
    refit_readers(base, "leading", 0.5, 1, Calibration(data, tokens=400), refitted)
    with pytest.raises(UserError, match=r"its readers are least-squares, pat\.readers is 'plain': give what it was made from"):
        tune(asked(refitted, data, "pat", 0.5, 0, twelve_steps(mask="leading", hio_rank=0), tmp_path / "run", adapter))
    with pytest.raises(UserError, match=r"refitted for pruning_ratio 0\.5, not 0\.25"):
        tune(asked(refitted, data, "pat", 0.25, 0, twelve_steps(**REFITTED), tmp_path / "run", adapter))
    with pytest.raises(UserError, match="refitted for mask leading, not frozen"):
        check_readers(refitted, "least-squares", "frozen", 0.5)
    with pytest.raises(UserError, match="refitted to 16 channels, the mask's settings keep 12"):
        tune(asked(refitted, data, "pat", 0.5, 0, twelve_steps(**REFITTED | {"align": 12}), tmp_path / "run", adapter))
    with pytest.raises(UserError, match="rotate first"):
        rotate(refitted, "pca", Calibration(data, tokens=400), tmp_path / "rotated")


def test_a_merge_on_readers_of_other_channels_is_refused(tmp_path: Path) -> None:
    base, data = write_world(tmp_path)
    for seed in (0, 1):
        refit_readers(base, "random", 0.5, 1, Calibration(data, tokens=400, seed=seed), tmp_path / f"refitted{seed}")
    settings = twelve_steps(**REFITTED | {"mask": "random", "closing": "at-once"})
    tune(asked(tmp_path / "refitted0", data, "pat", 0.5, 0, settings, tmp_path / "run", tmp_path / "adapter"))
    with pytest.raises(UserError, match="refitted to other channels than"):
        merge(tmp_path / "refitted1", tmp_path / "adapter", tmp_path / "merged")


@pytest.mark.parametrize(
    ("mask", "ratio", "message"),
    [
        ("trained", 0.25, "only a fixed mask knows before tuning"),
        ("best", 0.25, "PatConfig.mask='best': must be one of"),
        ("leading", 1.0, r"must lie in \[0, 1\)"),
        ("leading", 0.0, "--ratio 0: no channel goes"),
        ("fisher", 0.25, "--mask fisher: is measured on the instruction set"),
    ],
)
def test_what_cannot_be_refitted_is_refused(mask: str, ratio: float, message: str, tmp_path: Path) -> None:
    write_base("llama", tmp_path / "base")
    with pytest.raises(UserError, match=message):
        refit_readers(tmp_path / "base", mask, ratio, 4, calibration(tmp_path), tmp_path / "out")


def test_readers_are_refitted_once(tmp_path: Path) -> None:
    write_base("llama", tmp_path / "base")
    refit_readers(tmp_path / "base", "leading", 0.25, 4, calibration(tmp_path), tmp_path / "refitted")
    with pytest.raises(UserError, match="its readers are refitted already"):
        refit_readers(tmp_path / "refitted", "leading", 0.25, 4, calibration(tmp_path), tmp_path / "twice")
    with pytest.raises(UserError, match="align=48: widths are multiples of 48"):
        refit_readers(tmp_path / "base", "leading", 0.25, 48, calibration(tmp_path), tmp_path / "none")


def test_attach_asks_for_the_channels_of_refitted_readers() -> None:
    config = PatConfig(pruning_ratio=0.25, mask="fisher", readers="least-squares", align=4, hio_rank=0, closing="at-once")
    with pytest.raises(ValueError, match="`kept`, the channels of `pat refit-readers`, goes with"):
        attach(tiny_model("llama"), config, random_text())
    with pytest.raises(ValueError, match="goes with 'least-squares'"):
        attach(tiny_model("llama"), PatConfig(pruning_ratio=0.25, mask="leading", align=4), kept=range(36))
    kept = [*range(30), *range(42, 48)]
    model = attach(tiny_model("llama"), config, kept=kept)
    assert model.sparsifier.mask.kept.nonzero().flatten().tolist() == kept
    with torch.no_grad():
        assert torch.isfinite(model(input_ids=random_tokens()).logits).all()
