"""Rows per forward pass by the memory: counted as the trainer keeps them, the largest number that fits, and a result that does not change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from pat.errors import UserError
from pat.models.recomputed import recompute_feed_forward
from pat.settings.fields import GIB
from pat.settings.jobs import TuneJob, TuningSettings
from pat.training.micro_batch import kept_of_a_row, needed, rows_at_once
from pat.training.request import TuningRequest
from pat.training.tuned_model import build_model
from pat.training.tuning import tune
from tests.kit.tiny_world import write_world
from tests.kit.tuning_requests import asked

RECIPE: dict[str, Any] = {
    "max_steps": 12, "learning_rate": 3e-3, "batch_size": 8, "micro_batch_size": "auto", "max_length": 64, "device": "cpu",
    "log_steps": 2, "lora": {"rank": 2, "alpha": 4.0, "dropout": 0.0},
}  # fmt: skip


def request(folder: Path, name: str, tuner: str = "pat", **changes: Any) -> TuningRequest:
    job = TuneJob.model_validate({"tuning": RECIPE | changes, "pat": {"hio_rank": 3}})
    ratio = 0.25 if tuner == "pat" else 0.0
    return asked(folder / "base", folder / "instruct.jsonl", tuner, ratio, 7, job, folder / f"run-{name}", folder / name)


@pytest.mark.parametrize("tuner", ["lora", "pat"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_largest_number_that_fits_is_taken(tuner: str, precision: str, tmp_path: Path) -> None:
    write_world(tmp_path)
    open_, model = request(tmp_path, "a", tuner, precision=precision), build_model(request(tmp_path, "a", tuner, precision=precision))
    at_rest, of_a_row = needed(open_, model)
    for rows in (1, 2, 4, 8):
        for spare in (0.01, 0.99):
            bounded = request(tmp_path, "a", tuner, precision=precision, memory_gib=(at_rest + (rows + spare) * of_a_row) / GIB)
            assert rows_at_once(bounded, model) == rows
    three = request(tmp_path, "a", tuner, precision=precision, memory_gib=(at_rest + 3.5 * of_a_row) / GIB)
    assert rows_at_once(three, model) == 2, "three do not divide eight"
    assert rows_at_once(open_, model) is None, "nothing bounds a CPU's memory: the whole batch"
    with pytest.raises(UserError, match=r"one row of 64 tokens needs some 0\.\d GiB, there are 0\.0; set tuning\.gradient_checkpointing"):
        rows_at_once(request(tmp_path, "a", tuner, precision=precision, memory_gib=1e-4), model)


def test_counting_leaves_model_and_random_numbers_as_they_were(tmp_path: Path) -> None:
    write_world(tmp_path)
    model = build_model(request(tmp_path, "a", lora={"rank": 2, "dropout": 0.5}))
    before, drawn = {name: tensor.clone() for name, tensor in model.state_dict().items()}, torch.get_rng_state()
    model.eval()
    assert kept_of_a_row(model, 64, bf16=True) > 0
    assert torch.equal(torch.get_rng_state(), drawn) and not model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_recomputed_layers_need_less_a_row(tmp_path: Path) -> None:
    write_world(tmp_path)
    model = build_model(request(tmp_path, "a"))
    (at_rest, whole), (same, recomputed) = (needed(request(tmp_path, "a", gradient_checkpointing=flag), model) for flag in (False, True))
    assert at_rest == same and recomputed < whole


@pytest.mark.parametrize("tuner", ["lora", "pat"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_recomputed_feed_forward_blocks_are_counted_as_what_is_really_kept(tuner: str, precision: str, tmp_path: Path) -> None:
    """At the peak a block's share of the two layers is back, and a layer's gradients are there; then the model is as it was."""
    write_world(tmp_path)
    asked_for = request(tmp_path, "a", tuner, precision=precision, gradient_checkpointing="feed-forward")
    model, bf16 = build_model(asked_for), precision == "bf16"
    (at_rest, plain), (same, found) = needed(request(tmp_path, "a", tuner, precision=precision), model), needed(asked_for, model)
    whole = kept_of_a_row(model, 64, bf16=bf16)
    stock: Any = model.get_base_model()
    recompute_feed_forward(stock)
    kept = kept_of_a_row(model, 64, bf16=bf16)
    assert at_rest == same and plain == whole * 3 / 2 and kept < 0.7 * whole
    assert found == kept + (whole - kept) / 2 + whole / 2


def test_where_a_row_does_not_fit_what_keeps_less_is_named(tmp_path: Path) -> None:
    write_world(tmp_path)
    model = build_model(request(tmp_path, "a"))
    for value, advice in ((False, "feed-forward or true, "), ("feed-forward", "true, "), (True, None)):
        named = "set tuning.memory_gib" if advice is None else f"set tuning.gradient_checkpointing: {advice}tuning.memory_gib"
        with pytest.raises(UserError, match=named):
            rows_at_once(request(tmp_path, "a", memory_gib=1e-4, gradient_checkpointing=value), model)


@pytest.mark.lengthy
def test_a_tuning_in_fewer_rows_at_once_comes_to_the_same_weights(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_world(tmp_path)
    caplog.set_level("INFO")
    at_rest, of_a_row = needed(request(tmp_path, "auto"), build_model(request(tmp_path, "auto")))
    record = tune(request(tmp_path, "auto", memory_gib=(at_rest + 4.5 * of_a_row) / GIB))
    assert record["micro_batch_size"] == 4 and any(line.startswith("tune: 4 of 8 rows at once") for line in caplog.messages)
    assert tune(request(tmp_path, "whole", micro_batch_size=None))["micro_batch_size"] == 8
    found = [load_file(tmp_path / name / "hsm.safetensors") for name in ("auto", "whole")]
    assert all(torch.allclose(found[0][name], found[1][name], atol=1e-4) for name in found[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"micro_batch_size": 4, "memory_gib": 6.0}, "must be left out unless micro_batch_size is auto"),
        ({"micro_batch_size": None, "memory_gib": 6.0}, "must be left out unless micro_batch_size is auto"),
        ({"micro_batch_size": "most"}, "auto"),
        ({"shard": True}, "must be false with micro_batch_size: auto"),
    ],
)
def test_settings_that_contradict_it_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TuningSettings.model_validate(RECIPE | changes)
