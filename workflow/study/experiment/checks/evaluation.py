"""What checkpoints are scored on: that there is something for every model, and the same items for all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pat.settings.jobs import EvaluationSettings
from pat.settings.mistakes import shown
from study.experiment.checks.settings import taken
from study.experiment.schema import Experiment


def evaluation_problems(experiment: Experiment) -> Iterator[str]:
    """Check that every model is scored on something, and that no model has other items than the rest, which tables refuse."""
    settings = {model: found for model in experiment.models if (found := taken(experiment.evaluation_of, model)) is not None}
    yield from _unscored(experiment, settings)
    if experiment.data.tasks:
        yield from _other_items(experiment, "limit", {model: own.limit for model, own in settings.items()})
        yield from _other_items(experiment, "group_limit", {model: own.group_limit or own.limit for model, own in settings.items()})
    for task in {name: None for own in settings.values() for name in own.harness_tasks}:
        limits = {model: own.limit for model, own in settings.items() if task in own.harness_tasks}
        yield from _other_items(experiment, "limit", limits)


def _unscored(experiment: Experiment, settings: Mapping[str, EvaluationSettings]) -> Iterator[str]:
    """Tell in a line which models have nothing to be scored on."""
    data = experiment.data
    found = [name for name, own in settings.items() if not (data.text or own.harness_tasks or experiment.scores_tasks(name))]
    if not found:
        return
    of = "" if len(found) == len(settings) else f" for {', '.join(f'models.{name}' for name in found)}"
    if data.tasks:
        yield (
            f"evaluation.generate: is false{of}, and so is evaluation.log_likelihood, so nothing is evaluated: set one of them to true, or "
            "name a text in data.text"
        )
    else:
        yield f"data.tasks: is empty, and so are data.text and evaluation.harness_tasks{of}: name at least one thing to evaluate on"


def _other_items(experiment: Experiment, key: str, limits: Mapping[str, int | None]) -> Iterator[str]:
    """Yield the models whose own limit is not that of the models without one, or where all have one, not the first's."""
    own = [model for model in limits if key in experiment.models[model].evaluation]
    first = next((model for model in limits if model not in own), next(iter(limits), None))
    for model in own:
        if first is not None and limits[model] != limits[first]:
            rest = "left out" if limits[first] is None else shown(limits[first])
            yield (
                f"models.{model}.evaluation.{key}: {shown(limits[model])} is not allowed: must be {rest}, as for models.{first}, because a "
                f"table needs the same items of every model; to change it for all, set evaluation.{key}"
            )
