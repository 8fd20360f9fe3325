"""Settings after all overrides: what is refused, under the place in the file that wrote it, and tunings that are taken but cannot be run.

A mask needs some steps to close, GPUs equal shares of a batch, rows searches of one size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ParamSpec, TypeVar

from pydantic import BaseModel, ValidationError

from pat.settings.config import SHORTEST_MILESTONE
from pat.settings.jobs import EvaluationSettings, PruneSettings, TuneJob, TuningSettings
from pat.settings.mistakes import problems
from pat.settings.tuners import WITH_DORA
from pat.training.reporters import missing_reporters
from study.experiment.methods import Method
from study.experiment.parts import too_short
from study.experiment.schema import Experiment
from study.sources.resources import Resources

P = ParamSpec("P")
R = TypeVar("R")
Written = dict[tuple[str, ...], Mapping[str, Any]]
"""Place in the file → what of a joined value is written there, as it lies in the value; later places win."""


def taken(join: Callable[P, R], *args: P.args, **named: P.kwargs) -> R | None:
    """Return joined settings; None where they are refused, which `override_problems` tells."""
    try:
        return join(*args, **named)
    except ValidationError:
        return None


def override_problems(experiment: Experiment) -> Iterator[str]:
    """Check every cell's settings after all overrides; a problem is reported where the user wrote the value."""
    for model, source in experiment.models.items():
        of_model: Written = {(): dict(experiment), ("models", model): dict(source)}
        for row in experiment.known_rows:
            place, own = ("methods", row), experiment.row(row)
            of_row = of_model | {place: dict(own), (*place, "lora"): {"tuning": {"lora": own.lora}}}
            yield from _blamed(of_row, TuneJob, "", experiment.tune_job, model, row)
            yield from _blamed(of_row, PruneSettings, "prune", experiment.prune_settings, model, row)
        yield from _blamed(of_model, EvaluationSettings, "evaluation", experiment.evaluation_of, model)
        yield from _blamed(of_model, Resources, "resources", experiment.resources_of, model)


def _blamed(written: Written, kind: type[BaseModel], block: str, join: Callable[..., object], *names: str) -> Iterator[str]:
    """Yield the problems of a joined block, each under the place that wrote it last; where none did, under the whole file."""
    try:
        join(*names)
    except ValidationError as error:
        for problem in problems(kind, error, [block] if block else []):
            told, _, message = problem.partition(":")
            field = tuple(told.split("."))
            place = [place for place, holder in written.items() if _holds(holder, field)] or [()]
            own = field[2:] if place[-1][2:] == ("lora",) else field  # short for tuning.lora
            yield f"{'.'.join((*place[-1], *own))}:{message}"


def _holds(found: Any, field: tuple[str, ...]) -> bool:
    """Return whether something is written at a field, whatever it is."""
    for key in field:
        if not isinstance(found, Mapping) or key not in found:
            return False
        found = found[key]
    return True


def tuning_problems(experiment: Experiment) -> Iterator[str]:
    """Check the tuning of every row of every model, and that no row has more than the others to search its learning rate with."""
    for model in experiment.models:
        asked = taken(experiment.resources_of, model)
        gpus = (asked.tune.gpu or 0) if asked is not None else 0
        searches: dict[str, str] = {}
        for row, method in experiment.known_rows.items():
            if (job := taken(experiment.tune_job, model, row)) is None:
                continue
            yield from (f"tuning.report_to: needs the package {it}: pip install {it}" for it in missing_reporters(job.tuning.report_to))
            yield from _spread(model, row, method, job.tuning, gpus)
            if method.masked:
                yield from _milestone(job, row)
            if method.in_two_parts and (problem := too_short(job)) is not None:
                yield f"methods.{row}: {problem}"
            if method.tunes and job.tuning.search is not None:
                found = searches[row] = _budget(job.tuning)
                first, expected = next(iter(searches.items()))
                if found != expected:
                    yield f"methods.{row}.tuning: searches its learning rate among {found}, the row {first!r} among {expected}: must agree"


def refit_problems(experiment: Experiment) -> Iterator[str]:
    """Check that there are readers to refit where the experiment says how."""
    if experiment.refit.ridges is None:
        return
    readers = [taken(experiment.readers_of, model, row) for model in experiment.models for row in experiment.known_rows]
    if all(one == "plain" for one in readers):  # of a row that is refused nobody knows
        yield "refit.ridges: has no effect: no row refits readers (pat.readers: least-squares); remove it"


def _spread(model: str, row: str, method: Method, tuning: TuningSettings, gpus: int) -> Iterator[str]:
    """Check that GPUs can have equal shares of a batch, and that shards have several to lie on and a method that can be sharded."""
    micro = tuning.known_micro_batch_size
    if gpus > 1 and tuning.batch_size % (gpus * (micro or 1)):
        shares = f"{gpus} GPUs" + (f" × micro_batch_size {micro}" if micro else "")
        yield f"resources.tune.gpu: {gpus} is not allowed: models.{model}'s batch_size {tuning.batch_size} cannot be shared by {shares}"
    if not (tuning.shard and method.tunes):
        return
    if gpus < 2:
        yield f"tuning.shard: has no effect on models.{model}, which is tuned on one GPU: set its resources.tune.gpu, or remove it"
    if method.tuner in WITH_DORA:
        yield f"methods.{row}: is not possible with tuning.shard on models.{model}: DoRA takes norms of whole weights; give another method"


def _milestone(job: TuneJob, row: str) -> Iterator[str]:
    """Check that a mask that closes gradually has the steps for it, in the tuning and in its search."""
    lengths = {"max_steps": job.tuning.max_steps, "search.steps": job.tuning.search.steps if job.tuning.search else None}
    for name, steps in lengths.items():
        if steps is not None and not job.pat.closes_within(steps):
            yield (
                f"methods.{row}: {name} {steps} with milestone_fraction {job.pat.milestone_fraction:g} is not allowed: "
                f"must leave the mask at least {SHORTEST_MILESTONE} steps to close"
            )


def _budget(tuning: TuningSettings) -> str:
    """Return in words what a row may spend on the search of its learning rate."""
    assert tuning.search is not None
    steps = tuning.search.steps or tuning.max_steps
    length = f"{steps} steps" if steps else f"{tuning.epochs:g} epoch(s)"
    return f"{len(tuning.search.learning_rates)} rates, {length} each, by {tuning.search.dev_rows} rows"
