"""Reads an experiment file as it was written, before the schema has seen it: what is of another kind than expected counts as absent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from pat.methods import METHODS, Method, method_name


def part(raw: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """Return the mapping below `keys`, empty where the file has none or something else there."""
    found: Any = raw
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return {str(key): value for key, value in found.items()} if isinstance(found, Mapping) else {}


def methods_of(raw: Mapping[str, Any]) -> dict[str, Method]:
    """Return row -> registry entry for all rows whose method exists."""
    rows = part(raw, "methods")
    named = {row: method_name(row, part(rows, row)) for row in rows}
    return {row: METHODS[name] for row, name in named.items() if isinstance(name, str) and name in METHODS}


def usable_ratios(raw: Mapping[str, Any], row: str | None = None) -> list[float]:
    """Return the file's ratios that the schema takes; of a row, its own where it has some."""
    ratios = (part(raw, "methods", row).get("ratios") if row else None) or raw.get("ratios")
    return [ratio for ratio in ratios if isinstance(ratio, float) and 0 < ratio < 1] if isinstance(ratios, list) else []


def places_of(model: str, row: str) -> list[tuple[str, ...]]:
    """Return where the settings of a model's row may be written: in the experiment, the model and the row, of which the later win."""
    return [(), ("models", model), ("methods", row)]


def overlaid(raw: Mapping[str, Any], places: Sequence[tuple[str, ...]], key: str) -> dict[str, Any]:
    """Return the block `key` of the first place with those of the later ones laid over it."""
    return {name: value for place in places for name, value in part(raw, *place, key).items()}


def entries(value: object) -> list[object]:
    """Return a list's entries, none of anything else."""
    return list(value) if isinstance(value, list | tuple) else []


def texts(value: object) -> list[str]:
    """Return those of a list's entries that are text."""
    return [entry for entry in value if isinstance(entry, str)] if isinstance(value, list | tuple) else []


def is_count(value: object) -> TypeGuard[int]:
    """Return whether a value is a whole number above zero."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
