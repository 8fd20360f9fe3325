"""Settings after all overrides, each problem under the place in the file that wrote it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from pat.settings.jobs import EvaluationSettings, PruneSettings, TuneJob
from pat.settings.mistakes import problems
from study.experiment.overrides import overridden
from study.experiment.schema import Experiment, Row, merged_job
from study.sources.kinds import ModelSource
from study.sources.resources import Resources


@dataclass(frozen=True)
class _Layer:
    """Part of a merged value: `written` stands in the file below `place` and is laid into the value below `under`."""

    place: tuple[str, ...]
    under: tuple[str, ...]
    written: Mapping[str, Any]


def override_problems(experiment: Experiment) -> Iterator[str]:
    """Check every cell's settings after all overrides; a problem is reported where the user wrote the value."""
    for model, source in experiment.models.items():
        for row in experiment.known_rows:
            own = experiment.row(row)
            layers = [*_layers((), experiment), *_layers(("models", model), source), *_layers(("methods", row), own)]
            layers.append(_Layer(("methods", row, "lora"), ("tuning", "lora"), own.lora))
            yield from _blamed(TuneJob, merged_job([dict(holder) for holder in (experiment, source, own)]), layers)
            prune = [_Layer((), (), experiment.prune), _Layer(("models", model), (), source.prune), _Layer(("methods", row), (), own.prune)]
            layers = [_Layer((*layer.place, "prune"), (), layer.written) for layer in prune]
            yield from _blamed(PruneSettings, {name: value for layer in prune for name, value in layer.written.items()}, layers)
        for key, kind, base, own_part in (
            ("evaluation", EvaluationSettings, experiment.evaluation, source.evaluation),
            ("resources", Resources, experiment.resources, source.resources),
        ):
            written = base.model_dump(mode="json")
            layers = [_Layer((key,), (), written), _Layer(("models", model, key), (), own_part)]
            if own_part:
                yield from _blamed(kind, overridden(written, own_part), layers)


def _layers(place: tuple[str, ...], holder: Experiment | ModelSource | Row) -> list[_Layer]:
    """Return what the file, a model or a row says of a tuning."""
    return [_Layer((*place, key), (key,), getattr(holder, key)) for key in ("tuning", "pat")]


def _blamed(kind: type[BaseModel], value: Mapping[str, Any], layers: Sequence[_Layer]) -> Iterator[str]:
    """Yield the problems of a merged value, each under the place in the file that wrote it last."""
    try:
        kind.model_validate(dict(value))
    except ValidationError as error:
        for problem in problems(kind, error):
            field, _, message = problem.partition(":")
            yield f"{_origin(tuple(field.split('.')), layers)}:{message}"


def _origin(field: tuple[str, ...], layers: Sequence[_Layer]) -> str:
    """Return where in the file a merged value's field was written; where it is missing, the first layer that could hold it."""
    holders = [layer for layer in layers if field[: len(layer.under)] == layer.under]
    writers = [layer for layer in holders if _writes(layer.written, field[len(layer.under) :])]
    if not holders:
        return ".".join(field)
    layer = (writers or holders[:1])[-1]
    return ".".join((*layer.place, *field[len(layer.under) :]))


def _writes(written: Mapping[str, Any], field: Sequence[str]) -> bool:
    found: Any = written
    for key in field:
        if not isinstance(found, Mapping) or key not in found:
            return False
        found = found[key]
    return True
