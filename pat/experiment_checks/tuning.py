"""Tuning jobs: shares of a batch, shards, steps for the mask to close in, and the budgets of searches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from pat.experiment import merged_job
from pat.experiment_checks.raw_file import methods_of, part, places_of
from pat.methods import DORA_TUNERS, MASKED_TUNERS, Method
from pat.settings import TuneJob, TuningSettings

SHORTEST_MILESTONE = 2  # steps: the gate needs a first and a last one


def tuning_problems(raw: Mapping[str, Any]) -> Iterator[str]:
    """Check the tuning of every row of every model whose settings the schema takes."""
    for model in part(raw, "models"):
        for row, method in methods_of(raw).items():
            job = _job(raw, model, row)
            if job is None:
                continue
            yield from _shared_batch(raw, model, job.tuning)
            if job.tuning.shard and method.tunes:
                yield from _shards(raw, model, row, method)
            if method.tuner in MASKED_TUNERS:
                yield from _milestone(job, row)


def _job(raw: Mapping[str, Any], model: str, row: str) -> TuneJob | None:
    """Return the settings of a tuning after all overrides; None where the schema refuses them, which is told elsewhere."""
    try:
        return TuneJob.model_validate(merged_job([part(raw, *place) for place in places_of(model, row)]))
    except ValidationError:
        return None


def _shared_batch(raw: Mapping[str, Any], model: str, tuning: TuningSettings) -> Iterator[str]:
    """Check that the GPUs of a tuning can have equal shares of its batch."""
    asked = _gpus(raw, model)
    if asked > 1 and tuning.batch_size % (asked * (tuning.micro_batch_size or 1)):
        shares = f"{asked} GPUs" + (f" × micro_batch_size {tuning.micro_batch_size}" if tuning.micro_batch_size else "")
        yield f"resources.tune.gpu: {asked} is not allowed: models.{model}'s batch_size {tuning.batch_size} cannot be shared by {shares}"


def _shards(raw: Mapping[str, Any], model: str, row: str, method: Method) -> Iterator[str]:
    """Check that a base that is to be sharded has GPUs to lie on, and a method that does not need it whole."""
    if _gpus(raw, model) < 2:
        yield f"tuning.shard: has no effect on models.{model}, which is tuned on one GPU: set its resources.tune.gpu, or remove it"
    if method.tuner in DORA_TUNERS:
        yield f"methods.{row}: is not possible with tuning.shard on models.{model}: DoRA takes norms of whole weights; give another method"


def _gpus(raw: Mapping[str, Any], model: str) -> int:
    """Return for how many GPUs a model's tunings ask by name; 0 where the experiment does not say, or says no number."""
    asked = {**part(raw, "resources", "tune"), **part(raw, "models", model, "resources", "tune")}.get("gpu")
    return asked if isinstance(asked, int) else 0


def _milestone(job: TuneJob, row: str) -> Iterator[str]:
    """Check that a mask that closes by and by has the steps for it, in the tuning and in its search."""
    if job.pat.closing == "at-once":
        return
    search, fraction = job.tuning.search, job.pat.milestone_fraction
    lengths = {"max_steps": job.tuning.max_steps, "search.steps": search.steps if search else None}
    for name, steps in lengths.items():
        if steps is None or round(steps * fraction) >= SHORTEST_MILESTONE:
            continue
        yield (
            f"methods.{row}: {name} {steps} with milestone_fraction {fraction:g} is not allowed: "
            f"must leave the mask at least {SHORTEST_MILESTONE} steps to close"
        )


def search_problems(raw: Mapping[str, Any]) -> Iterator[str]:
    """Check that all rows whose learning rate is searched have the same budget for it, or their comparison would favour one."""
    for model in part(raw, "models"):
        budgets = {row: found for row, method in methods_of(raw).items() if (found := _budget(raw, model, row, method))}
        for row, found in budgets.items():
            first, expected = next(iter(budgets.items()))
            if found != expected:
                yield f"methods.{row}.tuning: searches its learning rate among {found}, the row {first!r} among {expected}: must agree"


def _budget(raw: Mapping[str, Any], model: str, row: str, method: Method) -> str | None:
    """Return in words what a row may spend on its search; None where it has none, or settings that are refused already."""
    job = _job(raw, model, row)
    if job is None or job.tuning.search is None or not method.tunes:
        return None
    tuning, search = job.tuning, job.tuning.search
    steps = search.steps or tuning.max_steps
    length = f"{steps} steps" if steps else f"{tuning.epochs:g} epoch(s)"
    return f"{len(search.learning_rates)} rates, {length} each, by {search.dev_rows} rows"
