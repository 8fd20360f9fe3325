"""The figures that lm-eval gives of a task, by its names: "acc,none", and beside it the standard error, "acc_stderr,none"."""

from __future__ import annotations

from collections.abc import Mapping

ERROR = "_stderr"


def is_error(name: str) -> bool:
    """Return whether a figure is the standard error of another."""
    return name.partition(",")[0].endswith(ERROR)


def without_errors(figures: Mapping[str, float]) -> dict[str, float]:
    """Return the figures that are none."""
    return {name: value for name, value in figures.items() if not is_error(name)}


def error_of(figures: Mapping[str, float], name: str) -> float | None:
    """Return the standard error of a figure; None where lm-eval gave none."""
    metric, _, chosen = name.partition(",")
    return figures.get(f"{metric}{ERROR},{chosen}")
