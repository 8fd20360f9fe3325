"""Where less of a model is removed than a ratio asks for, or more: before a run from its sizes on paper, in tables from what was counted.

Widths are rounded to what stock software accepts, and a head that is taken off a tied embedding costs a matrix of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from pat.benchmark.settings import ModelShape
from pat.errors import UserError
from pat.models.on_paper import Align, PaperModel
from pat.models.width import target_width
from pat.settings.jobs import PretrainSettings
from study.experiment.footprint import shape_in, shape_of
from study.experiment.levels import in_cache
from study.experiment.schema import Experiment

SHORTFALL = 0.2
"""Share of what was asked for. A model that has lost less than the rest, or more, is not to be compared as if it had lost as much."""


def is_off(asked: float, removed: float, tolerance: float = SHORTFALL) -> bool:
    """Return whether the share of all parameters that is removed is off the ratio that was asked for by more than this share of it."""
    return asked > 0 and abs(removed - asked) > tolerance * asked + 1e-9


def shortfalls(experiment: Experiment) -> Iterator[str]:
    """Yield a sentence for each row that narrows a model of known shape by a share that is more than a fifth off its ratio."""
    for model in experiment.models:
        if (shape := known_shape(experiment, model)) is None:
            continue
        for row in (row for row, method in experiment.rows_on(model).items() if method.narrows):
            broken, align = shape.tie_embeddings and experiment.breaks_the_tie(model, row), experiment.choices_of(model, row).align
            for level in experiment.ratios_of(model, row):
                removed = share_removed(shape, experiment.ratio_for(model, row, level), align, broken=broken)
                if is_off(level, removed):
                    why = "its head is taken off the embedding (tie: break)" if broken else "widths are rounded (pat.align)"
                    yield f"methods.{row}, models.{model}: ratio {level:g} removes {removed:.1%} of all parameters, because {why}"


def share_removed(shape: ModelShape | PretrainSettings, ratio: float, align: Align, *, broken: bool) -> float:
    """Return which share of all parameters a narrower stream takes away; `broken`: the head becomes a matrix of its own."""
    width = target_width(shape.hidden_size, shape.heads, ratio, align)
    narrower = PaperModel.of(shape, width, tied=shape.tie_embeddings and not broken)
    return 1 - narrower.parameters / PaperModel.of(shape).parameters


def known_shape(experiment: Experiment, model: str) -> ModelShape | PretrainSettings | None:
    """Return the sizes of a model that the file gives or that lies on this disk, in the hub's cache too; None of any other."""
    source = experiment.models[model]
    if source.pretrain is not None:
        return source.pretrain
    if source.gguf is not None:
        return _shape_in_gguf(Path(experiment.path(source.gguf)))
    folder = in_cache(source.hub) if source.path is None else Path(experiment.path(source.path))
    return None if folder is None else shape_in(folder)


def _shape_in_gguf(file: Path) -> ModelShape | None:
    from pat.checkpoints.gguf_import import checked_fields

    try:
        return shape_of(checked_fields(file))
    except (UserError, ValidationError, KeyError):  # what is wrong with it is told by the check of the model
        return None
