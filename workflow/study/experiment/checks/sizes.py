"""Sizes that the ratios lead to, of models whose shape the file gives; those of other models are checked when they are there."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence

from pydantic import ValidationError

from pat.models.on_paper import Align, PaperModel
from pat.models.width import target_width
from pat.pruners import PRUNERS, Pruner
from pat.settings.config import PatChoices
from pat.settings.jobs import PruneSettings
from study.experiment.schema import Experiment


def width_problems(experiment: Experiment) -> Iterator[str]:
    """Check the widths of the rows that narrow the stream, and that their operators' ranks fit it."""
    for model, shape in _shapes(experiment).items():
        for row in _narrowing(experiment, model):
            choices = _choices_of(experiment, model, row)
            rank = choices.hio_rank if choices is not None and "hio_rank" in choices.model_fields_set else 0
            if isinstance(rank, int) and rank > shape.hidden_size:
                yield f"methods.{row}, models.{model}: pat.hio_rank {rank} is not allowed: must be at most {shape.hidden_size}"
        yield from widths_on(experiment, model, shape.hidden_size, shape.heads)


def widths_on(experiment: Experiment, model: str, hidden_size: int, heads: int) -> Iterator[str]:
    """Yield ratios at which a model of these sizes has no width, or the same as at another."""
    aligns: dict[tuple[Align, tuple[float, ...]], str] = {}
    for row in _narrowing(experiment, model):
        if (choices := _choices_of(experiment, model, row)) is not None:
            aligns.setdefault((choices.align, experiment.ratios_of(row)), row)
    for (align, ratios), row in aligns.items():
        same = f"give width {{size}} of {hidden_size}: must differ; keep one, or lower pat.align"
        yield from _sizes_at(f"methods.{row}, models.{model}", _width_of(hidden_size, heads, align), ratios, same)


def _narrowing(experiment: Experiment, model: str) -> list[str]:
    return [row for row, method in experiment.known_rows.items() if method.narrows and model in experiment.models_of(row)]


def _width_of(hidden_size: int, heads: int, align: Align) -> Callable[[float], Hashable]:
    def width_at(ratio: float) -> int:
        try:
            return target_width(hidden_size, heads, ratio, align)
        except ValueError as error:
            raise ValueError(f"ratio {ratio:g} is not allowed: {error}") from None

    return width_at


def size_problems(experiment: Experiment) -> Iterator[str]:
    """Check the sizes that pruners come to which say on paper how they meet a ratio."""
    for model, shape in _shapes(experiment).items():
        yield from cuts_on(experiment, model, shape)


def cuts_on(experiment: Experiment, model: str, shape: PaperModel) -> Iterator[str]:
    """Yield ratios that a row's pruner cannot bring a model of this shape to, or brings to the same sizes as another."""
    pruners = {row: PRUNERS[method.pruner] for row, method in experiment.known_rows.items() if method.pruner is not None}
    for row, pruner in pruners.items():
        if pruner.size is None or pruner.obstacle(shape.family) or model not in experiment.models_of(row):
            continue
        choices = _choices_of(experiment, model, row)
        try:
            settings = experiment.prune_settings(model, row)
        except ValidationError:
            continue
        size_at = _size_of(pruner, shape, settings, choices.align if choices is not None else "auto")
        same = pruner.same.format(layers=shape.layers, size="{size}")
        yield from _sizes_at(f"methods.{row}, models.{model}", size_at, experiment.ratios_of(row), same)


def _size_of(pruner: Pruner, shape: PaperModel, settings: PruneSettings, align: Align) -> Callable[[float], Hashable]:
    def size_at(ratio: float) -> Hashable:
        assert pruner.size is not None
        return pruner.size(shape, ratio, settings, align)

    return size_at


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


def _choices_of(experiment: Experiment, model: str, row: str) -> PatChoices | None:
    """Return a row's mask settings after all overrides; None where they are refused, which is told elsewhere."""
    try:
        return PatChoices.model_validate({**experiment.pat, **experiment.models[model].pat, **experiment.row(row).pat})
    except ValidationError:
        return None


def _shapes(experiment: Experiment) -> dict[str, PaperModel]:
    """Return the models whose shape the file gives."""
    return {model: PaperModel.of(source.pretrain) for model, source in experiment.models.items() if source.pretrain is not None}
