"""Whether a tuning's settings fit the model that they are for, by its config, before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator

from pat.errors import SettingError
from pat.models.width import planned_width
from pat.settings.config import SHORTEST_MILESTONE
from pat.settings.jobs import WHOLE, TuneJob
from pat.settings.tuners import MASKED
from pat.training.request import TuningRequest


def check_fit(request: TuningRequest) -> None:
    """Raise SettingError where ranks, ratio or alignment are beyond the model, or the mask's choices do not go together."""
    for problem in rank_problems(request.model_config.hidden_size, request.tuner, request.job):
        raise SettingError(problem)
    if request.masked:
        planned_width(request.model_config, request.pat_config)


def rank_problems(hidden_size: int, tuner: str, job: TuneJob) -> Iterator[str]:
    """Yield the ranks that are larger than the model is wide."""
    ranks = {"tuning.lora.rank": job.tuning.lora.rank, "pat.hio_rank": job.pat.hio_rank if tuner in MASKED else 0}
    for name, rank in ranks.items():
        if isinstance(rank, int) and rank > hidden_size:
            yield f"{name}={rank}: must be at most the model's hidden size, {hidden_size}"


def check_steps(job: TuneJob, rows: int) -> None:
    """Raise SettingError where a run would have no step, or the rate would still be rising when it ends."""
    tuning, steps = job.tuning, job.tuning.steps_for(rows)
    part = "" if tuning.share == WHOLE else "the part from {:g} to {:g} of ".format(*tuning.share)
    run = f"is not allowed: {part}the run of {rows} rows takes {steps} steps"
    if not steps:
        raise SettingError(f"tuning.epochs: {tuning.epochs:g} {run}")
    if tuning.warmup_steps > steps:
        raise SettingError(f"tuning.warmup_steps: {tuning.warmup_steps} {run}")


def check_milestone(job: TuneJob, rows: int) -> None:
    """Raise SettingError where a mask that closes gradually has too few steps for it."""
    steps = job.tuning.steps_for(rows)
    if not job.pat.closes_within(steps):
        raise SettingError(
            f"tuning.{'epochs' if job.tuning.max_steps is None else 'max_steps'}: the run of {rows} rows takes {steps} steps, and "
            f"pat.milestone_fraction={job.pat.milestone_fraction:g} puts the milestone at step {job.pat.milestone_of(steps)}: it must be "
            f"{SHORTEST_MILESTONE} at least"
        )
