"""A training that diverges ends early in one message, and nothing is made of its weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from pat.errors import UserError
from pat.io.artefacts import write_jsonl
from pat.settings.jobs import PretrainSettings, TuneJob
from pat.training.pretraining import pretrain
from pat.training.tuning import tune
from tests.kit.tiny_world import write_world
from tests.kit.tuning_requests import asked

pytestmark = pytest.mark.lengthy

TUNING = {"max_steps": 12, "learning_rate": 1e6, "batch_size": 4, "checkpoint_steps": 2, "log_steps": 2, "lora": {"rank": 2}}


@pytest.mark.parametrize(("tuner", "ratio"), [("lora", 0.0), ("pat", 0.5)])
def test_a_tuning_that_diverges_is_one_message(tuner: str, ratio: float, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    base, data = write_world(tmp_path)
    job = TuneJob.model_validate({"tuning": TUNING, "pat": {"hio_rank": 2}})
    with pytest.raises(UserError, match=r"the training diverged: by step 2, .* is not finite; lower tuning\.learning_rate"):
        tune(asked(base, data, tuner, ratio, 0, job, tmp_path / "run", tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    assert "step 2: the gradients are not finite" in caplog.text


def test_a_pretraining_that_diverges_is_one_message(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "text.jsonl", [{"text": "one two three " * 40}])
    settings = PretrainSettings(
        vocab_size=300,
        hidden_size=8,
        layers=1,
        heads=2,
        intermediate_size=16,
        context_length=16,
        steps=40,
        batch_size=1,
        learning_rate=1e6,
    )
    with pytest.raises(UserError, match=r"the training diverged: .* lower pretrain\.learning_rate"):
        pretrain(tmp_path / "text.jsonl", settings, tmp_path / "run", tmp_path / "out")
    assert not (tmp_path / "out").exists()
