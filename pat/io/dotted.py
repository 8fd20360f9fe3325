"""Nested settings by dotted names, for whatever knows no nesting."""

from __future__ import annotations

from collections.abc import Iterator, Mapping


def dotted(values: Mapping[str, object], before: str = "") -> Iterator[tuple[str, object]]:
    """Yield the values of nested mappings with their dotted names."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from dotted(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value
