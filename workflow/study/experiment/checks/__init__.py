"""Checks across an experiment's fields, one module per subject. A new one is a function there and an entry in CHECKS.

They work on the experiment as far as its schema takes the file, so that a user sees all problems at once and not the first.
"""

from __future__ import annotations

from study.experiment.checks.benchmark import benchmark_problems
from study.experiment.checks.data import data_problems, figure_problems
from study.experiment.checks.evaluation import evaluation_problems
from study.experiment.checks.models import budget_problems, model_problems
from study.experiment.checks.names import name_problems
from study.experiment.checks.rows import row_problems, seed_problems, table_problems, tuned_row_problems
from study.experiment.checks.selection import selection_problems
from study.experiment.checks.settings import override_problems, refit_problems, tuning_problems
from study.experiment.schema import Experiment

CHECKS = (
    name_problems,
    row_problems,
    seed_problems,
    tuned_row_problems,
    table_problems,
    data_problems,
    evaluation_problems,
    override_problems,
    tuning_problems,
    refit_problems,
    model_problems,
    budget_problems,
    benchmark_problems,
    figure_problems,
    selection_problems,
)
"""In the order in which a user reads their problems."""


def problems_between(experiment: Experiment) -> list[str]:
    """Return what is wrong between the fields of an experiment, one line per problem."""
    return list(dict.fromkeys(problem for check in CHECKS for problem in check(experiment)))
