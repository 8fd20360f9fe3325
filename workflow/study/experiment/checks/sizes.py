"""Sizes that the ratios lead to, of models whose shape is known: from the experiment's file, or from the disk (disk.py)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import partial

from pat.models.on_paper import Align, PaperModel
from pat.models.width import target_width
from pat.pruners import PRUNERS
from pat.pruners.registry import Size
from pat.settings.jobs import PruneSettings
from pat.training.fit import rank_problems
from study.experiment.checks.taken import taken
from study.experiment.schema import Experiment


def size_problems(experiment: Experiment) -> Iterator[str]:
    """Check the sizes of the models whose shape the file gives."""
    for model, source in experiment.models.items():
        if source.pretrain is not None:
            yield from width_problems(experiment, model, source.pretrain.hidden_size, source.pretrain.heads)
            yield from cut_problems(experiment, model, PaperModel.of(source.pretrain))


def width_problems(experiment: Experiment, model: str, hidden_size: int, heads: int) -> Iterator[str]:
    """Check the ranks of all rows of a model, and the widths of those that narrow it, once for equal alignment and ratios."""
    told: set[tuple[Align, tuple[float, ...]]] = set()
    for row, method in experiment.known_rows.items():
        if model not in experiment.models_of(row):
            continue
        where, choices = f"methods.{row}, models.{model}", taken(experiment.choices_of, model, row)
        if method.tuner is not None and (job := taken(experiment.tune_job, model, row)) is not None:
            yield from (f"{where}: {problem}" for problem in rank_problems(hidden_size, method.tuner, job))
        ratios = experiment.plain_ratios_of(row)
        if method.narrows and choices is not None and (choices.align, ratios) not in told:
            told.add((choices.align, ratios))
            same = f"give width {{size}} of {hidden_size}: must differ; keep one, or lower pat.align"
            yield from _sizes_at(where, partial(_width, hidden_size, heads, choices.align), ratios, same)


def _width(hidden_size: int, heads: int, align: Align, ratio: float) -> int:
    try:
        return target_width(hidden_size, heads, ratio, align)
    except ValueError as error:
        raise ValueError(f"ratio {ratio:g} is not allowed: {error}") from None


def cut_problems(experiment: Experiment, model: str, shape: PaperModel) -> Iterator[str]:
    """Yield ratios that a row's pruner cannot bring a model of this shape to, or brings to the same sizes as another."""
    for row, method in experiment.known_rows.items():
        pruner, settings = PRUNERS.get(method.pruner or ""), taken(experiment.prune_settings, model, row)
        if pruner is None or pruner.size is None or settings is None:
            continue
        if pruner.obstacle(shape.family) or model not in experiment.models_of(row):
            continue
        choices = taken(experiment.choices_of, model, row)
        size_at = partial(_size, pruner.size, shape, settings, choices.align if choices is not None else "auto")
        same = pruner.same.format(layers=shape.layers, size="{size}")
        yield from _sizes_at(f"methods.{row}, models.{model}", size_at, experiment.plain_ratios_of(row), same)


def _size(size: Size, shape: PaperModel, settings: PruneSettings, align: Align, ratio: float) -> Hashable:
    return size(shape, ratio, settings, align)


def _sizes_at(where: str, size_at: Callable[[float], Hashable], ratios: Sequence[float], same: str) -> Iterator[str]:
    """Check that every ratio leads to a size, and no two to the same; `same` says in words which, None is none."""
    by_size: dict[Hashable, float] = {}
    for ratio in ratios:
        try:
            size = size_at(ratio)
        except ValueError as error:
            yield f"{where}: {error}"
            continue
        if size in by_size:
            yield f"{where}: the ratios {by_size[size]:g} and {ratio:g} both {same.format(size=size)}"
        if size is not None:
            by_size[size] = ratio
