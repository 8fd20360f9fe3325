"""From a budget of parameters to the size of a model that keeps within it: a width, units, slices or layers, by what a pruner cuts.

The inverse of sizes.py, width.py and depth.py: those go from a ratio to a size. Counts shapes; no weights, no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from pat.errors import SettingError
from pat.families.known import Kind, Role
from pat.io.progress import say
from pat.models.on_paper import Align, PaperModel, kept_inner_units, kept_units, layers_and_neurons, sliced_width
from pat.models.sizes import Kept, Shapes, Units, slicing_of, step_of, units_in, window
from pat.models.width import no_width, width_step
from pat.settings.budget import Budget
from pat.settings.jobs import PruneSettings

DIGITS = 6
"""Of a ratio that is solved for; `target_width` finds its width again from as many."""
NOMINAL_STEPS = 1000
COLUMNS = (Role.EMBEDDING, Role.POSITIONS, Role.HEAD, Role.READ)
"""Those whose columns are channels; of what else touches the stream the rows are."""


@dataclass(frozen=True)
class Fit:
    """What a budget comes to: the ratio that a command is to be asked for, the size in words, and the parameters left by it."""

    ratio: float
    size: str
    parameters: int


SizeT = TypeVar("SizeT")
Within = Callable[[PaperModel, int, PruneSettings, Align], Fit]
"""From a model, the parameters that may stay, settings and align to the largest size within; raises SettingError where there is none."""


@contextmanager
def of_budget(budget: object) -> Iterator[None]:
    """Name the budget in a mistake that speaks of the ratio it was solved to, which the user has not written."""
    try:
        yield
    except SettingError as error:
        raise error if str(error).startswith("budget") else SettingError(f"budget {budget}: {error}") from None


def ratio_within(model: PaperModel, bytes_each: int, budget: Budget, within: Within, settings: PruneSettings, align: Align) -> float:
    """Return the ratio at which a model keeps within a budget, and say what it comes to. Raises SettingError where none does."""
    with of_budget(budget):
        fit = within(model, budget.allowed(model.parameters, bytes_each), settings, align)
    say(f"budget {budget}: ratio {fit.ratio:g}, {fit.size}: {fit.parameters:,} of {model.parameters:,} parameters stay at most")
    return fit.ratio


def width_ratio_within(
    model: PaperModel, bytes_each: int, budget: Budget, align: Align, kept: Sequence[int] | None, *, untied: bool = False
) -> float:
    """Return the share of the hidden size to remove to keep a model within a budget, and say what it comes to.

    `kept` are the channels that the model's readers are refitted to, which settle the width; `untied` as for `parameters_at`. Raises
    SettingError where no width keeps within the budget, or that one does not.
    """
    if kept is not None:
        _check_width_within(model, bytes_each, budget, len(kept))
        return round(1 - len(kept) / model.hidden_size, DIGITS)
    return ratio_within(model, bytes_each, budget, width_fit, PruneSettings(tie="break" if untied else "keep"), align)


def _check_width_within(model: PaperModel, bytes_each: int, budget: Budget, width: int) -> None:
    """Raise SettingError where a model is over a budget at a width that is settled already: its readers are refitted to it."""
    allowed, left = budget.allowed(model.parameters, bytes_each), parameters_at(model, width)
    if left > allowed:
        raise SettingError(
            f"budget {budget}: the readers are refitted to width {width} of {model.hidden_size}, at which {left:,} of {model.parameters:,} "
            f"parameters stay, more than {allowed:,}; refit them again, within the budget"
        )
    say(f"budget {budget}: width {width} of {model.hidden_size}, to which the readers are refitted: {left:,} parameters stay")


def share_to_remove(model: PaperModel, allowed: int) -> float:
    """Return the smallest ratio of so many digits that leaves no more than is allowed."""
    smallest: float = math.ceil((1 - allowed / model.parameters) * 10**DIGITS - 1e-6) / 10**DIGITS
    return smallest


def parameters_at(model: PaperModel, width: int, *, untied: bool = False) -> int:
    """Return a model's parameters at another hidden size; `untied`: its head becomes a matrix of its own."""
    total = model.vocab_size * width if untied and model.tied else 0
    for name, shape in model.shapes().items():
        channels = _channels(model.family.role(name), shape)
        total += math.prod(shape) if channels is None else math.prod(shape) // channels * width
    return total


def _channels(role: Role, shape: Sequence[int]) -> int | None:
    """Return how many channels a tensor of this shape has along its columns or its rows; None where it has none.

    In memory a tensor of all experts has one more axis before the two.
    """
    if role is Role.INSIDE or (role in COLUMNS and len(shape) == 1):
        return None
    return shape[-1] if role in COLUMNS or len(shape) == 1 else shape[-2]


def width_within(model: PaperModel, allowed: int, align: Align, *, untied: bool = False) -> Fit:
    """Return the largest width that stock software takes at which a model keeps within what is allowed."""
    step = width_step(model.hidden_size, model.heads, align)
    if step >= model.hidden_size:
        raise no_width(model.hidden_size, step, align)
    for width in range((model.hidden_size - 1) // step * step, 0, -step):
        if (left := parameters_at(model, width, untied=untied)) <= allowed:
            return Fit(round(1 - width / model.hidden_size, DIGITS), f"width {width} of {model.hidden_size}", left)
    least = parameters_at(model, step, untied=untied)
    raise SettingError(f"{_asked(allowed)}: at the smallest width, {step} of {model.hidden_size}, {least:,} stay; allow as many")


def width_fit(model: PaperModel, allowed: int, settings: PruneSettings, align: Align) -> Fit:
    """Return the fit of a pruner that narrows the stream."""
    return width_within(model, allowed, align, untied=settings.tie == "break")


def share_fit(model: PaperModel, allowed: int, _settings: PruneSettings, _align: Align) -> Fit:
    """Return the fit of a pruner of which no more is known than that its ratio is a share of all parameters."""
    return Fit(share_to_remove(model, allowed), "of a size that its pruner finds", allowed)


def units_fit(model: PaperModel, allowed: int, settings: PruneSettings, align: Align) -> Fit:
    """Return the fit of a pruner that takes heads and neurons out of every layer."""
    return _units_fit(model, range(model.layers), lambda ratio: kept_units(model, ratio, settings, align), allowed, settings)


def inner_units_fit(model: PaperModel, allowed: int, settings: PruneSettings, align: Align) -> Fit:
    """Return the fit of a pruner that takes heads and neurons out of the layers that are not protected."""
    layers = window(model.layers, settings.protect_first, settings.protect_last)
    return _units_fit(model, layers, lambda ratio: kept_inner_units(model, ratio, settings, align), allowed, settings)


def _units_fit(model: PaperModel, layers: range, at: Callable[[float], Kept], allowed: int, settings: PruneSettings) -> Fit:
    units = units_in(model.shapes(), model.family, model.kv_heads, model.intermediate_size, layers)
    ratio, kept, left = _solved(model, at, lambda kept: _left(model, units, kept), allowed, settings)
    of = f"{kept.groups} of {model.kv_heads} groups of heads, {kept.neurons} of {model.intermediate_size} neurons"
    return Fit(ratio, f"{of} in {len(layers)} of {model.layers} layers", left)


def _left(model: PaperModel, units: Mapping[Kind, Units], kept: Kept) -> int:
    groups, neurons = units["groups"], units["neurons"]
    gone = (groups.count - kept.groups) * groups.parameters + (neurons.count - kept.neurons) * neurons.parameters
    return model.parameters - gone


def slices_fit(model: PaperModel, allowed: int, settings: PruneSettings, align: Align) -> Fit:
    """Return the fit of a pruner that cuts the stream block by block, with shortcuts."""
    slicing = slicing_of(model.shapes(), model.family, model.layers, model.hidden_size, tied=model.tied)
    ratio, width, left = _solved(model, lambda ratio: sliced_width(model, ratio, settings, align), slicing.parameters, allowed, settings)
    return Fit(ratio, f"{width} of {model.hidden_size} directions a block", left)


def _solved(
    model: PaperModel, at: Callable[[float], SizeT], left: Callable[[SizeT], int], allowed: int, settings: PruneSettings
) -> tuple[float, SizeT, int]:
    """Return the smallest ratio whose size keeps within what is allowed, that size and what it leaves.

    Matched, the ratio is the share that goes. Nominal, it is the method's own knob, which is turned until enough has gone.
    """
    if settings.size == "matched":
        ratio = share_to_remove(model, allowed)
        return ratio, (size := at(ratio)), left(size)
    refused: SettingError | None = None
    for count in range(1, NOMINAL_STEPS):
        try:
            size = at(count / NOMINAL_STEPS)
        except SettingError as error:
            refused = error
            continue
        if left(size) <= allowed:
            return count / NOMINAL_STEPS, size, left(size)
    raise SettingError(f"{_asked(allowed)}: no ratio leaves so few" + (f" ({refused})" if refused else ""))


def layers_fit(model: PaperModel, allowed: int, _settings: PruneSettings, _align: Align) -> Fit:
    """Return the fit of a pruner that takes whole layers."""
    share = model.share_of_a_layer
    dropped = math.ceil((model.parameters - allowed) / (share * model.parameters) - 1e-9)
    if dropped >= model.layers:
        least = round(model.parameters * (1 - share * (model.layers - 1)))
        raise SettingError(f"{_asked(allowed)}: with a single layer of {model.layers}, {least:,} stay; allow as many")
    left = round(model.parameters * (1 - dropped * share))
    return Fit(round(dropped * share, DIGITS), f"{model.layers - dropped} of {model.layers} layers", left)


def layers_and_neurons_fit(model: PaperModel, allowed: int, settings: PruneSettings, align: Align) -> Fit:
    """Return the fit of a pruner that takes layers, and neurons for the rest, whose number is rounded to the nearest step."""
    units: Shapes = model.shapes()
    neuron = units_in(units, model.family, model.kv_heads, model.intermediate_size, range(model.layers))["neurons"].parameters
    half = neuron * step_of(model.intermediate_size, align) / 2
    ratio = share_to_remove(model, math.floor(allowed - half))
    if ratio >= 1:
        raise SettingError(f"{_asked(allowed)}: fewer than a step of its neurons has; allow more")
    layers_and_neurons(model, ratio, settings, align)
    return Fit(ratio, "as many layers and neurons as text tells", allowed)


def _asked(allowed: int) -> str:
    return f"budget of {allowed:,} parameters"
