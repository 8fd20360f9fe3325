"""Which rows refit writers after their cut or readers before it, and where the memory that an experiment gives them cannot hold that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pat.benchmark.settings import ModelShape
from pat.families.known import family_named
from pat.pruners import PRUNERS
from pat.settings.jobs import PretrainSettings, PruneSettings
from study.experiment import footprint
from study.experiment.schema import Experiment
from study.experiment.shortfall import known_shape

RIDGES = 2
"""Of pat/bases/reader_fit.py, which brings torch: as many are tried where an experiment names none."""


def refit_of(experiment: Experiment, model: str, row: str, family: str) -> PruneSettings | None:
    """Return the settings of a row's pruner where writers of a model of this family are refitted after its cut; else None."""
    if (name := experiment.method(row).pruner) is None or family_named(family).refit_obstacle is not None:
        return None
    settings = experiment.prune_settings(model, row)
    return settings if PRUNERS[name].refits_writers(settings) else None


def number_of_ridges(experiment: Experiment) -> int:
    """Return how many ridges are tried where readers are refitted."""
    return RIDGES if experiment.refit.ridges is None else len(experiment.refit.ridges)


def too_little_memory(experiment: Experiment) -> Iterator[str]:
    """Yield a sentence for each row of a model of known shape whose refit can need more than `resources.prune.mem_mb` by itself."""
    for model in experiment.models:
        given, shape = experiment.resources_of(model).prune, known_shape(experiment, model)
        if given.mem_mb is None or shape is None:
            continue
        for row in experiment.rows_on(model):
            for need in (*_of_writers(experiment, model, row, shape), *_of_readers(experiment, model, row, shape)):
                if given.mem_mb < need.mb:
                    instead = f", or {need.instead}" if need.least_mb <= given.mem_mb else ""
                    yield (
                        f"methods.{row}, models.{model}: refitting {need.of} takes up to {need.mb:,} MB, more than resources.prune.mem_mb "
                        f"gives ({given.mem_mb:,}): raise it{instead}"
                    )


@dataclass(frozen=True)
class _Need:
    """The memory that a refit takes at most, and to how little a setting can bring it."""

    of: str
    mb: int
    instead: str
    least_mb: int = 0


def _of_writers(experiment: Experiment, model: str, row: str, shape: ModelShape | PretrainSettings) -> Iterator[_Need]:
    if (refit := refit_of(experiment, model, row, shape.family)) is not None:
        on_gpu = bool(footprint.gpus(footprint.parameters_of(shape), experiment.tune_job(model, row).tuning.device))
        yield _Need("writers", footprint.refitting_mb(shape, refit.writer_tokens, on_gpu=on_gpu), "set prune.writer_tokens lower")


def _of_readers(experiment: Experiment, model: str, row: str, shape: ModelShape | PretrainSettings) -> Iterator[_Need]:
    """Yield what readers need at the row's lowest ratio: maps are the larger the more is kept."""
    if experiment.readers_of(model, row) == "plain":
        return
    ratio = min(experiment.ratio_for(model, row, level) for level in experiment.ratios_of(model, row))
    align, tied = experiment.tune_job(model, row).pat.align, shape.tie_embeddings and not experiment.breaks_the_tie(model, row)
    needed, least = (footprint.reader_refitting_mb(shape, ratio, align, ridges, tied=tied) for ridges in (number_of_ridges(experiment), 1))
    yield _Need("readers", needed, "name fewer refit.ridges", least)
