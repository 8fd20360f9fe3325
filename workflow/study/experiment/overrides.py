"""Settings laid over settings: what a model, a row or an experiment's own file says differently from what it starts from."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from copy import deepcopy
from typing import Any

ALTERNATIVES = {"epochs": "max_steps", "max_steps": "epochs", "learning_rate": "search", "search": "learning_rate"}
"""Tuning keys that exclude each other: the one that is given later replaces the other."""


def overridden(base: Mapping[str, Any], changes: Mapping[str, Any], *, whole_with: Collection[str] = ()) -> dict[str, Any]:
    """Return `base` with `changes` laid over it, mappings inside mappings being joined key by key.

    A mapping of `changes` that has one of the keys `whole_with` replaces the one below it.
    """
    result = deepcopy(dict(base))
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        joins = both and value.keys().isdisjoint(whole_with)
        result[key] = overridden(result[key], value, whole_with=whole_with) if joins else deepcopy(value)
    return result


def merged_job(layers: list[dict[str, Any]]) -> dict[str, Any]:
    """Return raw tune settings from layers that hold `tuning`, `pat` and perhaps `lora` (short for tuning.lora); the later win."""
    job: dict[str, Any] = {"tuning": {}, "pat": {}}
    for layer in layers:
        tuning = overridden(layer["tuning"], {"lora": layer["lora"]} if layer.get("lora") else {})
        for given, replaced in ALTERNATIVES.items():
            if given in tuning:
                job["tuning"].pop(replaced, None)
        job = overridden(job, {"tuning": tuning, "pat": layer["pat"]})
    return job
