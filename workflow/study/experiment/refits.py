"""Which rows refit writers after their cut, and where the memory that an experiment gives them cannot hold the text's streams."""

from __future__ import annotations

from collections.abc import Iterator

from pat.families.known import family_named
from pat.pruners import PRUNERS
from pat.settings.jobs import PruneSettings
from study.experiment import footprint
from study.experiment.schema import Experiment
from study.experiment.shortfall import known_shape


def refit_of(experiment: Experiment, model: str, row: str, family: str) -> PruneSettings | None:
    """Return the settings of a row's pruner where writers of a model of this family are refitted after its cut; else None."""
    if (name := experiment.method(row).pruner) is None or family_named(family).refit_obstacle is not None:
        return None
    settings = experiment.prune_settings(model, row)
    return settings if PRUNERS[name].refits_writers(settings) else None


def too_little_memory(experiment: Experiment) -> Iterator[str]:
    """Yield a sentence for each row of a model of known shape whose refit can need more than `resources.prune.mem_mb` by itself."""
    for model in experiment.models:
        given, shape = experiment.resources_of(model).prune, known_shape(experiment, model)
        if given.mem_mb is None or shape is None:
            continue
        for row in experiment.rows_on(model):
            if (refit := refit_of(experiment, model, row, shape.family)) is None:
                continue
            on_gpu = bool(footprint.gpus(footprint.parameters_of(shape), experiment.tune_job(model, row).tuning.device))
            needed = footprint.refitting_mb(shape, refit.writer_tokens, on_gpu=on_gpu)
            if given.mem_mb < needed:
                yield (
                    f"methods.{row}, models.{model}: refitting writers takes up to {needed:,} MB, more than resources.prune.mem_mb gives "
                    f"({given.mem_mb:,}): raise it, or set prune.writer_tokens lower"
                )
