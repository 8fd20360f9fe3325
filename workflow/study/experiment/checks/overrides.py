"""Settings after all overrides, each problem under the place in the file that wrote it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from pat.settings.jobs import EvaluationSettings, PruneSettings, TuneJob
from pat.settings.mistakes import problems
from study.experiment.overrides import overridden
from study.experiment.schema import Experiment, merged_job
from study.sources.resources import Resources

Written = dict[tuple[str, ...], dict[str, Any]]
"""Place in the file → what of a joined value is written there, as it lies in the value; later places win."""


def override_problems(experiment: Experiment) -> Iterator[str]:
    """Check every cell's settings after all overrides; a problem is reported where the user wrote the value."""
    for model, source in experiment.models.items():
        whole, of_model = (), ("models", model)
        for row in experiment.known_rows:
            of_row, own = ("methods", row), experiment.row(row)
            holders: Written = {whole: dict(experiment), of_model: dict(source), of_row: dict(own)}
            shorthand: Written = {(*of_row, "lora"): {"tuning": {"lora": own.lora}}}
            yield from _blamed(TuneJob, merged_job(list(holders.values())), holders | shorthand)
            yield from _blamed(PruneSettings, {**experiment.prune, **source.prune, **own.prune}, holders, "prune")
        for key, kind in (("evaluation", EvaluationSettings), ("resources", Resources)):
            written = getattr(experiment, key).model_dump(mode="json")
            layers: Written = {whole: {key: written}, of_model: {key: getattr(source, key)}}
            yield from _blamed(kind, overridden(written, getattr(source, key)), layers, key)


def _blamed(kind: type[BaseModel], value: Mapping[str, Any], written: Written, *under: str) -> Iterator[str]:
    """Yield the problems of a joined value, each under the place that wrote it last; where none did, under the first that could."""
    try:
        kind.model_validate(dict(value))
    except ValidationError as error:
        for problem in problems(kind, error):
            told, _, message = problem.partition(":")
            field = (*under, *told.split("."))
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
