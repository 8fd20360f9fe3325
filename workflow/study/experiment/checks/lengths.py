"""Tunings whose length is given in passes over the rows: told where the rows are known, before a base is made or fetched for hours."""

from __future__ import annotations

from collections.abc import Iterator

from pat.errors import SettingError
from pat.settings.jobs import TuneJob
from pat.training.fit import check_milestone, check_steps
from study.experiment.checks.contents import most_rows
from study.experiment.checks.settings import taken
from study.experiment.schema import Experiment


def length_problems(experiment: Experiment) -> Iterator[str]:
    """Yield rows whose warm-up is longer than their tuning, or a part of it, and those whose mask has too few steps to close."""
    jobs = list(_by_passes(experiment))
    if not jobs or (rows := most_rows(experiment)) is None:  # counting takes seconds
        return
    for model, row, masked, job in jobs:
        try:
            check_steps(job, rows)
            if masked:
                check_milestone(job, rows)
        except SettingError as error:
            yield f"methods.{row}, models.{model}: {error}"


def _by_passes(experiment: Experiment) -> Iterator[tuple[str, str, bool, TuneJob]]:
    """Yield the tunings, or their parts, that are so many passes over the rows: model, row, whether a mask is in it, settings."""
    for model in experiment.models:
        for row, method in experiment.rows_on(model).items():
            job = taken(experiment.tune_job, model, row)
            if method.tunes and job is not None and job.tuning.epochs is not None:
                for each in experiment.parts_of(model, row) if method.in_two_parts else (job,):
                    yield model, row, method.masked, each
