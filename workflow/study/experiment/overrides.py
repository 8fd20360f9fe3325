"""Settings laid over settings: what a model, a row or an experiment's own file says differently from what it starts from."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from copy import deepcopy
from typing import Any


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
