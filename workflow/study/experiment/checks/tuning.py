"""Tunings as they are after all overrides: the length that a mask needs to close, shares of a batch, shards, equal searches."""

from __future__ import annotations

from collections.abc import Iterator

from pat.settings.config import SHORTEST_MILESTONE
from pat.settings.jobs import TuneJob, TuningSettings
from pat.training.reporters import missing_reporters
from study.experiment.checks.taken import taken
from study.experiment.methods import DORA_TUNERS, MASKED_TUNERS, Method
from study.experiment.schema import Experiment


def tuning_problems(experiment: Experiment) -> Iterator[str]:
    """Check the tuning of every row of every model."""
    for model in experiment.models:
        asked = taken(experiment.resources_of, model)
        gpus = (asked.tune.gpu or 0) if asked is not None else 0
        for row, method in experiment.known_rows.items():
            job = taken(experiment.tune_job, model, row)
            if job is None:
                continue
            yield from _shared_batch(model, job.tuning, gpus)
            yield from (f"tuning.report_to: needs the package {it}: pip install {it}" for it in missing_reporters(job.tuning.report_to))
            if job.tuning.shard and method.tunes:
                yield from _shards(model, row, method, gpus)
            if method.tuner in MASKED_TUNERS:
                yield from _milestone(job, row)


def _shared_batch(model: str, tuning: TuningSettings, gpus: int) -> Iterator[str]:
    """Check that the GPUs of a tuning can have equal shares of its batch."""
    micro = tuning.known_micro_batch_size
    if gpus > 1 and tuning.batch_size % (gpus * (micro or 1)):
        shares = f"{gpus} GPUs" + (f" × micro_batch_size {micro}" if micro else "")
        yield f"resources.tune.gpu: {gpus} is not allowed: models.{model}'s batch_size {tuning.batch_size} cannot be shared by {shares}"


def _shards(model: str, row: str, method: Method, gpus: int) -> Iterator[str]:
    """Check that a base that is to be sharded has GPUs to lie on, and a method that does not need it whole."""
    if gpus < 2:
        yield f"tuning.shard: has no effect on models.{model}, which is tuned on one GPU: set its resources.tune.gpu, or remove it"
    if method.tuner in DORA_TUNERS:
        yield f"methods.{row}: is not possible with tuning.shard on models.{model}: DoRA takes norms of whole weights; give another method"


def _milestone(job: TuneJob, row: str) -> Iterator[str]:
    """Check that a mask that closes gradually has the steps for it, in the tuning and in its search."""
    if job.pat.closing == "at-once":
        return
    search, fraction = job.tuning.search, job.pat.milestone_fraction
    lengths = {"max_steps": job.tuning.max_steps, "search.steps": search.steps if search else None}
    for name, steps in lengths.items():
        if steps is None or job.pat.milestone_of(steps) >= SHORTEST_MILESTONE:
            continue
        yield (
            f"methods.{row}: {name} {steps} with milestone_fraction {fraction:g} is not allowed: "
            f"must leave the mask at least {SHORTEST_MILESTONE} steps to close"
        )


def search_problems(experiment: Experiment) -> Iterator[str]:
    """Check that all rows whose learning rate is searched have the same budget for it, or their comparison would favour one."""
    for model in experiment.models:
        budgets = {row: found for row, method in experiment.known_rows.items() if (found := _budget(experiment, model, row, method))}
        for row, found in budgets.items():
            first, expected = next(iter(budgets.items()))
            if found != expected:
                yield f"methods.{row}.tuning: searches its learning rate among {found}, the row {first!r} among {expected}: must agree"


def _budget(experiment: Experiment, model: str, row: str, method: Method) -> str | None:
    """Return in words what a row may spend on its search; None where it has none, or settings that are refused already."""
    job = taken(experiment.tune_job, model, row)
    if job is None or job.tuning.search is None or not method.tunes:
        return None
    tuning, search = job.tuning, job.tuning.search
    steps = search.steps or tuning.max_steps
    length = f"{steps} steps" if steps else f"{tuning.epochs:g} epoch(s)"
    return f"{len(search.learning_rates)} rates, {length} each, by {search.dev_rows} rows"
