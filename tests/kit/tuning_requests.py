"""Tunings as tests ask for them, in one line."""

from __future__ import annotations

from pathlib import Path

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
