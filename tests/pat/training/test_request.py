"""A tuning's request: what follows from its arguments, and that each feature says in its own module why it is not for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pat.errors import UserError
from pat.method import compaction
from pat.models import compiled, sharding
from pat.settings.jobs import TuneJob
from pat.training import distillation, resume, search
from pat.training.request import TuningRequest
from tests.kit.tiny_models import tiny_model
from tests.kit.tuning_requests import asked

RATES = {"learning_rate": None, "search": {"learning_rates": [1e-4, 1e-3]}}


def request(folder: Path, tuner: str = "pat", ratio: float = 0.25, teacher: Path | None = None, **tuning: Any) -> TuningRequest:
    tiny_model("llama").config.save_pretrained(folder)
    recipe = {"max_steps": 9, "learning_rate": 1e-3, "batch_size": 2, "lora": {"rank": 3}} | tuning
    job = TuneJob.model_validate({"tuning": recipe, "pat": {"hio_rank": 5, "mask": "leading"}})
    return asked(folder, folder / "rows.jsonl", tuner, ratio, 4, job, folder / "run", teacher=teacher)


def test_the_config_of_the_run_has_the_files_choices_and_the_arms(tmp_path: Path) -> None:
    config = request(tmp_path, "pat-dora").pat_config
    assert (config.hio_rank, config.mask, config.pruning_ratio, config.lora_rank, config.seed) == (5, "leading", 0.25, 3, 4)
    assert config.use_dora and not request(tmp_path).pat_config.use_dora


def test_what_is_read_is_read_once(tmp_path: Path) -> None:
    one = request(tmp_path)
    assert one.model_config is one.model_config and one.steps == 9, "the rows are not looked for where the recipe says how many steps"
    assert replace(one, seed=5).model_config is not one.model_config


@pytest.mark.parametrize(
    ("feature", "processes", "changes", "reason"),
    [
        (compaction, 1, {}, "on a CPU it gains little"),
        (compaction, 1, {"compact": True}, None),
        (compaction, 1, {"compact": False}, "tuning.compact is false"),
        (compaction, 2, {"shard": True}, "the base is in shards"),
        (compaction, 1, {"tuner": "lora", "ratio": 0.0}, "nothing is pruned"),
        (compiled, 1, {}, "that is for a GPU"),
        (compiled, 1, {"compile": True}, None),
        (compiled, 1, {"compile": False}, "tuning.compile is false"),
        (sharding, 2, {}, "tuning.shard is false"),
        (sharding, 1, {"shard": True}, "the job is one process"),
        (sharding, 2, {"shard": True}, None),
        (sharding, 2, {"shard": True, "tuner": "pat-dora"}, "DoRA takes norms of whole weights"),
        (resume, 1, {"shard": True}, None),
        (resume, 2, {"shard": True}, "it could not save the state of an optimizer of shards"),
        (distillation, 1, {"teacher": Path("tuned")}, "tuning.distillation is not set"),
        (distillation, 1, {"distillation": {}}, "there is no --teacher"),
        (distillation, 1, {"distillation": {}, "teacher": Path("tuned")}, None),
        (search, 1, {}, "tuning.search is not set"),
        (search, 1, RATES, None),
    ],
)
def test_a_feature_says_why_it_is_not_for_a_request(
    feature: ModuleType, processes: int, changes: dict[str, Any], reason: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pat.machine.processes.count", lambda: processes)
    assert feature.reason_not_to(request(tmp_path, **{"device": "cpu"} | changes)) == reason


@pytest.mark.parametrize(
    ("tuner", "ratio", "message"),
    [
        ("qlora", 0.0, "--tuner 'qlora': must be one of lora, dora, pat, pat-dora, pat-g"),
        ("pat", 1.0, r"--ratio 1\.0: must lie in \[0, 1\)"),
        ("lora", 0.25, r"--ratio 0\.25 with --tuner lora: only pat, pat-dora and pat-g prune while they tune"),
    ],
)
def test_what_no_tuner_does_is_refused(tuner: str, ratio: float, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        request(tmp_path, tuner, ratio).check()
