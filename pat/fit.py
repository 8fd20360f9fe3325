"""Whether a tuning's settings fit the model that they are for, told from its config before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pat.config import PatConfig
from pat.errors import SettingError
from pat.settings import TuneJob
from pat.width import target_width


def check_fit(config: Any, tuner: str, pat: PatConfig | None, job: TuneJob) -> None:
    """Raise SettingError where ranks, ratio or alignment are beyond a model of this config; `pat` is the tuner's mask, where it has one."""
    for problem in rank_problems(config.hidden_size, tuner, job):
        raise SettingError(problem)
    if pat is not None:
        target_width(config.hidden_size, config.num_attention_heads, pat.pruning_ratio, pat.align)


def rank_problems(hidden_size: int, tuner: str, job: TuneJob) -> Iterator[str]:
    """Yield the ranks that are larger than the model is wide."""
    ranks = {"tuning.lora.rank": job.tuning.lora.rank, "pat.hio_rank": job.pat.hio_rank if tuner.startswith("pat") else 0}
    for name, rank in ranks.items():
        if isinstance(rank, int) and rank > hidden_size:
            yield f"{name}={rank}: must be at most the model's hidden size, {hidden_size}"


def check_warmup(job: TuneJob, rows: int) -> None:
    """Raise SettingError where the rate would still be rising when the run ends."""
    steps = job.tuning.steps_for(rows)
    if job.tuning.warmup_steps > steps:
        raise SettingError(f"tuning.warmup_steps: {job.tuning.warmup_steps} is not allowed: the run of {rows} rows takes {steps} steps")
