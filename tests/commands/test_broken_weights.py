"""Weights that are NaN or infinite are told before the work that they would spoil, by every verb that reads a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pat.bases.rotate import rotate
from pat.checkpoints import checkpoint
from pat.checkpoints.push import Published, push
from pat.errors import UserError
from pat.pruners.pruning import prune
from pat.scoring.evaluation import evaluate
from pat.settings.jobs import EvaluationSettings, TuneJob
from pat.training.tuning import tune
from tests.kit.pruning_inputs import calibration, write_base
from tests.kit.tiny_models import tiny_model
from tests.kit.tiny_world import write_world
from tests.kit.tuning_requests import asked

JOB = TuneJob.model_validate({"tuning": {"max_steps": 4, "learning_rate": 1e-3, "batch_size": 4, "device": "cpu", "lora": {"rank": 2}}})


def broken(folder: Path, value: float) -> Path:
    model = tiny_model("llama")
    with torch.no_grad():
        model.get_parameter("model.layers.1.mlp.up_proj.weight")[3, 5] = value
    write_base("llama", folder / "base", model)
    return folder / "base"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_weight_that_is_not_finite_is_named(tmp_path: Path, value: float) -> None:
    with pytest.raises(UserError, match=r"base: the tensor model\.layers\.1\.mlp\.up_proj\.weight holds NaN or infinity"):
        checkpoint.load_model(broken(tmp_path, value))


VERBS: dict[str, Callable[[Path, Path, Path], object]] = {
    "tune": lambda base, data, folder: tune(asked(base, data, "lora", 0.0, 0, JOB, folder / "run", folder / "out")),
    "prune": lambda base, _, folder: prune(base, "channel-fisher", 0.25, 4, folder / "out", calibration(folder)),
    "import-model": lambda base, _, folder: checkpoint.import_model(base, folder / "out"),
    "push": lambda base, *_: push(base, "me/x", Published(), dry_run=True),
    "rotate": lambda base, _, folder: rotate(base, "pca", calibration(folder), folder / "out"),
    "evaluate": lambda base, _, folder: evaluate(
        base, [], [calibration(folder).path], EvaluationSettings.model_validate({"device": "cpu"}), 0, folder / "evaluation.json"
    ),
}


@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_works_with_it(tmp_path: Path, verb: str) -> None:
    _, data = write_world(tmp_path / "world")
    with pytest.raises(UserError, match="holds NaN or infinity"):
        VERBS[verb](broken(tmp_path, float("nan")), data, tmp_path)
    assert not (tmp_path / "out").exists() and not (tmp_path / "evaluation.json").exists()
