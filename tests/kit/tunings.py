"""Short tunings of a tiny model: their recipe, their jobs, and one that is interrupted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

import pat.training.tuning
from pat.settings.jobs import TuneJob
from pat.training.resume import SealCheckpoints
from pat.training.tuning import tune
from tests.kit.tuning_requests import asked

RECIPE: dict[str, Any] = {
    "max_steps": 24, "learning_rate": 3e-3, "batch_size": 8, "micro_batch_size": 4, "checkpoint_steps": 8, "log_steps": 2, "device": "cpu",
    "lora": {"rank": 2, "alpha": 4.0, "dropout": 0.1},
}  # fmt: skip


def job(pat: dict[str, Any] | None = None, **changes: Any) -> TuneJob:
    return TuneJob.model_validate({"tuning": RECIPE | changes, "pat": {"hio_rank": 3} | (pat or {})})


def run(
    folder: Path, name: str, tuner: str = "pat", ratio: float = 0.25, settings: TuneJob | None = None, teacher: Path | None = None
) -> dict[str, Any]:
    paths = folder / f"run-{name}", folder / name, teacher
    return tune(asked(folder / "base", folder / "instruct.jsonl", tuner, ratio, 7, settings or job(), *paths))


def adapter_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}


def run_until(stop: int, folder: Path, name: str, monkeypatch: pytest.MonkeyPatch, **choices: Any) -> None:
    """Run the job and end it when the checkpoint of a step is there."""

    class Interrupt(SealCheckpoints):
        def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
            super().on_save(args, state, control, **kwargs)
            if state.global_step == stop:
                raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(pat.training.tuning, "SealCheckpoints", Interrupt)
        run(folder, name, **choices)
