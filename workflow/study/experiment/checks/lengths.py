"""Tunings whose length is given in passes over the rows: told where the rows are known, before a base is made or fetched for hours."""

from __future__ import annotations

from collections.abc import Iterator

from pat.errors import SettingError
from pat.training.fit import check_milestone, check_steps
from study.experiment.checks.contents import most_rows
from study.experiment.checks.settings import taken
from study.experiment.schema import Experiment


def length_problems(experiment: Experiment) -> Iterator[str]:
    """Yield rows whose warm-up is longer than their tuning, or a part of it, and those whose mask has too few steps to close."""
    if (rows := most_rows(experiment)) is None:
        return
    for model in experiment.models:
        for row, method in experiment.rows_on(model).items():
            job = taken(experiment.tune_job, model, row)
            if not method.tunes or job is None or job.tuning.epochs is None:
                continue
            for each in experiment.parts_of(model, row) if method.in_two_parts else (job,):
                try:
                    check_steps(each, rows)
                    if method.masked:
                        check_milestone(each, rows)
                except SettingError as error:
                    yield f"methods.{row}, models.{model}: {error}"
