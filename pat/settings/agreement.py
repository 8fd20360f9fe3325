"""Checks that settings share: of a field beside those before it in its class, and of a list's values beside each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import ValidationInfo

ValueT = TypeVar("ValueT")
FieldCheck = Callable[[Any, ValidationInfo], Any]
"""What pydantic calls with a field's value and with those of the fields before it."""


def exactly_one_of(*names: str) -> FieldCheck:
    """Return the check that exactly one of these fields is given. It belongs to the one that comes last in the class."""

    def check(value: Any, info: ValidationInfo) -> Any:
        others = set(names) - {info.field_name}
        if others <= info.data.keys() and sum(each is not None for each in (value, *map(info.data.get, others))) != 1:
            raise ValueError(f"give exactly one of {', '.join(names[:-1])} and {names[-1]}")
        return value

    return check


def divides(other: str) -> FieldCheck:
    """Return the check that a whole number divides that of an earlier field. Text and None pass."""

    def check(value: Any, info: ValidationInfo) -> Any:
        whole = info.data.get(other)
        if isinstance(value, int) and whole is not None and whole % value:
            raise ValueError(f"must divide {other}, which is {whole}")
        return value

    return check


def at_most(other: str) -> FieldCheck:
    """Return the check that a number is not more than that of an earlier field, where both are given."""

    def check(value: Any, info: ValidationInfo) -> Any:
        most = info.data.get(other)
        if value is not None and most is not None and value > most:
            raise ValueError(f"must not be more than {other}, which is {most}")
        return value

    return check


def each_once(values: tuple[ValueT, ...]) -> tuple[ValueT, ...]:
    """Return the values if each is there once, ratios and rates as paths write them. Raises ValueError that names those that are not."""
    written = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
    if twice := sorted({text for text in written if written.count(text) > 1}):
        raise ValueError(f"must name each value once; {', '.join(twice)} stands there more often")
    return values
