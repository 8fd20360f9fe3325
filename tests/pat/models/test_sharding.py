"""A tuning whose frozen base is in shards over two processes takes the course of one process with the whole of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from pat.checkpoints.merge import merge
from pat.errors import UserError
from pat.io.artefacts import check_folder, read_json
from pat.machine import processes
from pat.method.adapter_folder import NO_LORA
from pat.models import sharding
from pat.settings.jobs import TuningSettings
from pat.training.request import TuningRequest
from tests.kit.sharded_runs import check_same_course, tune_all
from tests.kit.sharded_tunings import CASES, INTERRUPTED_AT, job
from tests.kit.tuning_requests import asked


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every case was trained by one process and, in shards, by two, which import torch once for all of them."""
    folder = tmp_path_factory.mktemp("sharded")
    said = tune_all(folder, "cpu", [])
    assert f"resuming from {folder}/run-resumed/checkpoint-{INTERRUPTED_AT}" in said
    assert "the model is not compacted: the base is in shards" in said
    return folder


@pytest.mark.parametrize("name", CASES)
def test_two_processes_with_shards_tune_as_one_does(tuned: Path, name: str) -> None:
    check_same_course(tuned, name, within=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_each_process_holds_half_of_what_is_frozen_and_all_that_is_trained(tuned: Path, name: str) -> None:
    course = read_json(tuned / f"two-{name}" / "course.json")
    assert course["held"] == pytest.approx(0.5, abs=0.01) and course["trained_whole"]
    assert read_json(tuned / f"one-{name}" / "course.json")["held"] == 1.0


def test_a_sharded_job_resumes_to_the_same_bytes(tuned: Path) -> None:
    """It was interrupted while the mask was open; a checkpoint holds nothing of the base."""
    for path in sorted((tuned / "two-pat").glob("*.safetensors")):
        assert (tuned / "resumed" / path.name).read_bytes() == path.read_bytes()
    straight, resumed = (read_json(tuned / name / "course.json")["history"] for name in ("two-pat", "resumed"))
    assert straight[:-1] == resumed[:-1], "the last entry says how long it took"
    checkpoints = {folder.name for folder in (tuned / "run-resumed").glob("checkpoint-*")}
    assert checkpoints == {"checkpoint-8", "checkpoint-10"}, "none of the last step"
    saved = load_file(tuned / "run-resumed" / "checkpoint-10" / "adapter_model.safetensors")
    assert NO_LORA in saved and all(".lora_" in name for name in saved.keys() - {NO_LORA})


def test_the_adapter_of_a_sharded_job_merges(tuned: Path) -> None:
    check_folder(tuned / "adapter")
    record = read_json(tuned / "adapter" / "tuning.json")
    assert record["sharded"] and not record["compacted"] and record["processes"] == 2
    assert not (tuned / "run-adapter").exists()
    assert (tuned / "adapter" / "hsm.safetensors").read_bytes() == (tuned / "two-pat" / "hsm.safetensors").read_bytes()
    merged = merge(tuned / "base", tuned / "adapter", tuned / "merged")
    assert merged["logit_gap"] <= 1e-4 and merged["hidden_size"]["after"] == 24


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"compact": True}, "must be false with compact: true"),
        ({"compile": True}, "must be false with compile: true"),
        ({"learning_rate": None, "search": {"learning_rates": [1e-4, 1e-3]}}, "must be false with search"),
    ],
)
def test_what_needs_the_base_whole_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TuningSettings.model_validate(job("pat", shard=True, device="cpu").tuning.model_dump() | changes)


def sharded(tuner: str) -> TuningRequest:
    """Return the request for a tuning on the CPU that is told to shard its base."""
    return asked(Path("base"), Path("rows"), tuner, 0.25, 7, job("pat", shard=True, device="cpu"), Path("run"))


@pytest.mark.parametrize(("tuner", "plain"), [("dora", "lora"), ("pat-dora", "pat")])
def test_dora_is_refused_and_told_what_to_use(tuner: str, plain: str) -> None:
    with pytest.raises(UserError, match=f"--tuner {tuner}: is not possible.*use {plain}$"):
        sharding.check_sharding(sharded(tuner))


def test_shards_lie_on_gpus_where_there_are_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("pat.machine.processes.count", lambda: 2)
    with pytest.raises(UserError, match="device: cpu"):
        sharding.check_sharding(sharded("pat"))


def test_one_process_tunes_as_without_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    request = sharded("pat")
    assert processes.count() == 1 and not request.sharded
    with caplog.at_level("INFO"):
        sharding.check_sharding(request)
    assert "tuning.shard has no effect: the job is one process" in caplog.text
