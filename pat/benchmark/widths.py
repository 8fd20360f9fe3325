"""The narrower widths of a shape that a benchmark measures: by their ratios, by budgets, or as they are given. Knows nothing of torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pat.benchmark.settings import InferenceBenchmark, ModelShape
from pat.errors import SettingError, UserError
from pat.io.progress import say
from pat.models.budget import Fit, width_fit
from pat.models.on_paper import Align, PaperModel
from pat.models.width import target_width
from pat.settings.budget import Budget
from pat.settings.fields import BYTES
from pat.settings.jobs import PruneSettings


def fit_of(shape: ModelShape, budget: Budget, align: Align, bytes_each: int) -> Fit:
    """Return the width that a budget comes to in a shape, of parameters of so many bytes. Raises SettingError where there is none."""
    sizes = PaperModel.of(shape)
    return width_fit(sizes, budget.allowed(sizes.parameters, bytes_each), PruneSettings(), align)


def ratio_of(shape: ModelShape, asked: float | Budget, align: Align, bytes_each: int) -> float:
    """Return the share of the hidden size that is asked for, or that a budget comes to. Raises SettingError where that cannot be."""
    return fit_of(shape, asked, align, bytes_each).ratio if isinstance(asked, Budget) else asked


def narrowed_at(
    shape: ModelShape, asked: float | Budget, align: Align, bytes_each: int, hio_rank: int | str, ranks: str = "", place: str = "settings: "
) -> float:
    """Return the same, where the shape has such a width and operators of such a rank fit it. Raises UserError where they do not.

    `place` is what stands before the names of the fields, `ranks` what besides before the rank's.
    """
    try:
        ratio = ratio_of(shape, asked, align, bytes_each)
        target_width(shape.hidden_size, shape.heads, ratio, align)
    except SettingError as error:
        raise UserError(f"{place}ratio: {error}") from None
    if isinstance(hio_rank, int) and hio_rank > shape.hidden_size:
        raise UserError(f"{place}{ranks}hio_rank: {hio_rank} is not allowed: must be at most the shape's hidden size, {shape.hidden_size}")
    return ratio


def solved(shape: ModelShape, asked: Iterable[float | Budget], align: Align, bytes_each: int) -> Iterator[str]:
    """Yield in words what each budget comes to in a shape."""
    for budget in asked:
        if isinstance(budget, Budget):
            fit = fit_of(shape, budget, align, bytes_each)
            yield f"budget {budget}: {fit.size}, {fit.parameters:,} parameters"


def tell_budgets(verb: str, shape: ModelShape, asked: Iterable[float | Budget], align: Align, bytes_each: int) -> None:
    """Say what each budget comes to in the shape that a verb measures."""
    for line in solved(shape, asked, align, bytes_each):
        say(f"{verb}: {line}")


def widths_of(shape: ModelShape, settings: InferenceBenchmark, place: str = "settings: ") -> list[int]:
    """Return the narrower widths that ratios and widths ask for, widest first, each once.

    Raises UserError where a shape has none of them; `place` is what stands before the names of the fields.
    """
    for width in settings.widths:
        if width >= shape.hidden_size or width % shape.heads:
            raise UserError(f"{place}widths: {width} is not allowed: must be a multiple of {shape.heads} heads below {shape.hidden_size}")
    try:
        ratios = [ratio_of(shape, asked, settings.align, BYTES[settings.precision]) for asked in settings.ratios]
        rounded = [target_width(shape.hidden_size, shape.heads, ratio, settings.align) for ratio in ratios]
    except SettingError as error:
        raise UserError(f"{place}ratios: {error}") from None
    widths = sorted({*settings.widths, *rounded}, reverse=True)
    if not widths:
        raise UserError(
            f"{place}ratios: give at least one of ratios and widths: a benchmark compares the unpruned model with narrower ones"
        )
    return widths
