"""Checks across an experiment file's fields, one module a subject. A new one is a function there and an entry in CHECKS.

They read the raw file and step over what the schema refuses already, so that a user sees all problems at once and not the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pat.benchmark.checks import benchmark_problems
from pat.experiment_checks.data import data_problems
from pat.experiment_checks.names import name_problems
from pat.experiment_checks.overrides import override_problems
from pat.experiment_checks.raw_file import part
from pat.experiment_checks.report import figure_problems, table_problems
from pat.experiment_checks.rows import row_problems, seed_problems, teacher_problems
from pat.experiment_checks.sizes import size_problems, width_problems
from pat.experiment_checks.tuning import search_problems, tuning_problems

Check = Callable[[Mapping[str, Any]], Iterator[str]]


def check_grid(raw: Mapping[str, Any]) -> list[str]:
    """Return what is wrong between the fields of a raw experiment file, one line a problem."""
    return list(dict.fromkeys(problem for check in CHECKS for problem in check(raw)))


def _benchmark(raw: Mapping[str, Any]) -> Iterator[str]:
    block = part(raw, "benchmark")
    if block:
        yield from benchmark_problems(block)


CHECKS: tuple[Check, ...] = (
    name_problems,
    row_problems,
    seed_problems,
    teacher_problems,
    search_problems,
    table_problems,
    data_problems,
    override_problems,
    tuning_problems,
    width_problems,
    size_problems,
    _benchmark,
    figure_problems,
)
"""In the order in which a user reads their problems."""
