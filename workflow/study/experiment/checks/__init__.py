"""Checks across an experiment's fields, one module per subject. A new one is a function there and an entry in CHECKS.

They work on the experiment as far as its schema takes the file, so that a user sees all problems at once and not the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from study.experiment.budgets import budget_problems
from study.experiment.checks.benchmark import benchmark_problems
from study.experiment.checks.data import data_problems
from study.experiment.checks.families import family_problems
from study.experiment.checks.names import name_problems
from study.experiment.checks.overrides import override_problems
from study.experiment.checks.report import figure_problems, table_problems
from study.experiment.checks.rows import row_problems, seed_problems, teacher_problems
from study.experiment.checks.sizes import size_problems
from study.experiment.checks.tuning import search_problems, tuning_problems
from study.experiment.schema import Experiment

Check = Callable[[Experiment], Iterator[str]]


def problems_between(experiment: Experiment) -> list[str]:
    """Return what is wrong between the fields of an experiment, one line per problem."""
    return list(dict.fromkeys(problem for check in CHECKS for problem in check(experiment)))


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
    size_problems,
    budget_problems,
    family_problems,
    benchmark_problems,
    figure_problems,
)
"""In the order in which a user reads their problems."""
