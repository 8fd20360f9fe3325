"""Settings after all overrides, each problem under the place in the file that wrote it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from pat.experiment import merged_job
from pat.experiment_checks.raw_file import methods_of, overlaid, part, places_of
from pat.mistakes import problems
from pat.overrides import overridden
from pat.resources import Resources
from pat.settings import EvaluationSettings, PruneSettings, TuneJob


@dataclass(frozen=True)
class _Layer:
    """Part of a merged value: `written` stands in the file below `place` and is laid into the value below `under`."""

    place: tuple[str, ...]
    under: tuple[str, ...]
    written: Mapping[str, Any]


def override_problems(raw: Mapping[str, Any]) -> Iterator[str]:
    """Check every cell's settings after all overrides; a problem is reported where the user wrote the value."""
    for model in part(raw, "models"):
        for row in methods_of(raw):
            yield from _of_tuning(raw, model, row)
            yield from _of_pruning(raw, model, row)
        for key, kind in (("evaluation", EvaluationSettings), ("resources", Resources)):
            layers = [_Layer(place, (), part(raw, *place)) for place in ((key,), ("models", model, key))]
            if layers[-1].written:
                yield from _blamed(kind, overridden(layers[0].written, layers[1].written), layers)


def _of_tuning(raw: Mapping[str, Any], model: str, row: str) -> Iterator[str]:
    places = places_of(model, row)
    layers = [_Layer((*place, key), (key,), part(raw, *place, key)) for place in places for key in ("tuning", "pat")]
    layers.append(_Layer(("methods", row, "lora"), ("tuning", "lora"), part(raw, "methods", row, "lora")))
    yield from _blamed(TuneJob, merged_job([part(raw, *place) for place in places]), layers)


def _of_pruning(raw: Mapping[str, Any], model: str, row: str) -> Iterator[str]:
    places = places_of(model, row)
    layers = [_Layer((*place, "prune"), (), part(raw, *place, "prune")) for place in places]
    yield from _blamed(PruneSettings, overlaid(raw, places, "prune"), layers)


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
