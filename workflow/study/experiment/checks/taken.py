"""Settings after all overrides, where the schema takes them: what it refuses is reported where it is written (overrides.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from pydantic import ValidationError

P = ParamSpec("P")
R = TypeVar("R")


def taken(join: Callable[P, R], *args: P.args, **named: P.kwargs) -> R | None:
    """Return what is joined; None where it is refused."""
    try:
        return join(*args, **named)
    except ValidationError:
        return None
