"""What a tuning needs of the rows of the instruction set: told where they are known, before a base is made or fetched for hours."""

from __future__ import annotations

from collections.abc import Iterator

from pat.errors import SettingError
from pat.settings.jobs import TuneJob
from pat.training.fit import check_milestone, check_steps
from study.experiment.checks.contents import most_rows
from study.experiment.checks.settings import taken
from study.experiment.schema import Experiment


def length_problems(experiment: Experiment) -> Iterator[str]:
    """Yield rows whose warm-up is longer than their tuning, or a part of it, and those whose mask has too few steps to close.

    Before them searches of a learning rate that keep apart all rows there are.
    """
    jobs, kept_apart = list(_by_passes(experiment)), _dev_rows(experiment)
    if not (jobs or kept_apart) or (rows := most_rows(experiment)) is None:  # counting takes seconds
        return
    for dev_rows in kept_apart:
        if dev_rows >= rows:
            yield (
                f"tuning.search.dev_rows: {dev_rows} is not allowed: must be less than {rows}, the rows of the instruction set, of "
                "which some must be left to learn from"
            )
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


def _dev_rows(experiment: Experiment) -> list[int]:
    """Return how many rows searches of a learning rate keep apart, each number once."""
    pairs = ((model, row) for model in experiment.models for row in experiment.rows_on(model))
    searches = (taken(experiment.search_of, model, row) for model, row in pairs)
    return list(dict.fromkeys(search.dev_rows for search in searches if search is not None))
