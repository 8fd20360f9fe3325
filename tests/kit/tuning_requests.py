"""Tunings as tests ask for them, in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pat.settings.jobs import TuneJob
from pat.training.request import TuningRequest


def asked(
    base: Path,
    data: Path,
    tuner: str,
    ratio: float,
    seed: int,
    job: TuneJob,
    run_dir: Path,
    out: Path | None = None,
    teacher: Path | None = None,
) -> TuningRequest:
    """Return the request of these arguments; without `out` nothing is written but checkpoints."""
    return TuningRequest(
        base=base, data=data, tuner=tuner, ratio=ratio, seed=seed, job=job, run_dir=run_dir, out=out or run_dir / "out", teacher=teacher
    )


def twelve_steps(**pat: Any) -> TuneJob:
    """Return the settings of a tuning that takes a moment, without dropout, with choices of a mask."""
    recipe = {"max_steps": 12, "learning_rate": 3e-3, "batch_size": 4, "device": "cpu", "lora": {"rank": 2, "dropout": 0.0}}
    return TuneJob.model_validate({"tuning": recipe, "pat": pat})
