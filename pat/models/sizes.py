"""From a pruning ratio to the sizes that a model keeps: attention groups, neurons, widths of the stream. No torch.

`matched` solves the sizes for the share of all parameters that goes; `nominal` turns the method's own knob, which removes less. All
counting is by tensor names and shapes, so that a checkpoint and a shape on paper are counted alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from pat.errors import SettingError
from pat.families.blocks import Part
from pat.families.known import Family, Kind, Role
from pat.models.bounds import just_below
from pat.models.width import check_rounding

Shapes = Mapping[str, tuple[int, ...]]
STEP = 8
"""Matrix kernels want multiples of 8 at least."""
STEPS_AT_LEAST = 64
"""A size must be choosable this finely, or small models would miss the wanted share."""
PROTECTED_FIRST, PROTECTED_LAST, PUBLISHED_LAYERS = 4, 2, 32
SHALLOW = 16
"""Models of fewer layers protect the same share of theirs as published, not as many: the rest would have to lose too much."""


@dataclass(frozen=True)
class Place:
    """Where a tensor holds units: in which layer, of which kind, along which axis, in one or several parts one after the other.

    In each part the units lie in equal blocks one after the other.
    """

    layer: int
    kind: Kind
    axis: int
    parts: tuple[Part, ...]

    def lengths(self, whole: int, queries: int) -> list[int]:
        """Return how much of the axis, `whole` long, each part has; a group has `queries` query heads."""
        weights = [queries if part == "query" else 1 for part in self.parts]
        return [whole * weight // sum(weights) for weight in weights]


@dataclass(frozen=True)
class Units:
    """The units of one kind: how many a layer has, and how many parameters go with one of them taken out of every layer at hand."""

    count: int
    parameters: int


@dataclass(frozen=True)
class Kept:
    """How many units of each kind a layer keeps."""

    groups: int
    neurons: int


def place_of(family: Family, tensor: str) -> Place | None:
    """Return where a checkpoint's tensor holds units; None where it holds none."""
    module, _, parameter = tensor.rpartition(".")
    if (place := family.place(module)) is None:
        return None
    layer, name = place
    for block in family.blocks:
        for reader in block.readers:
            if name == reader.name:
                return Place(layer, block.kind, 0, reader.parts[:1] if reader.by_head else reader.parts)
        if name == block.write and parameter == "weight":
            return Place(layer, block.kind, 1, block.write_parts)
    return None


def window(layers: int, protect_first: int | None = None, protect_last: int | None = None) -> range:
    """Return the layers that may lose units: all but the first and the last few, by default 4 and 2 (LLM-Pruner, block-wise).

    Raises SettingError where none is left.
    """
    first = _protected(PROTECTED_FIRST, layers) if protect_first is None else protect_first
    last = _protected(PROTECTED_LAST, layers) if protect_last is None else protect_last
    if first + last >= layers:
        raise SettingError(f"protect_first {first} and protect_last {last}: leave none of {layers} layers to prune")
    return range(first, layers - last)


def _protected(published: int, layers: int) -> int:
    return published if layers >= SHALLOW else math.floor(published * layers / PUBLISHED_LAYERS + 0.5)


def units_in(shapes: Shapes, family: Family, groups: int, neurons: int, layers: range) -> dict[Kind, Units]:
    """Return the units of these layers, counted from tensor shapes; each layer has `groups` and `neurons` of them."""
    counts: dict[Kind, int] = {"groups": groups, "neurons": neurons}
    totals: dict[Kind, int] = dict.fromkeys(counts, 0)
    for name, shape in shapes.items():
        place = place_of(family, name)
        if place is not None and place.layer in layers:
            totals[place.kind] += math.prod(shape)
    return {kind: Units(count, totals[kind] // count) for kind, count in counts.items()}


def step_of(size: int, align: int | Literal["auto"]) -> int:
    """Return what a size is a multiple of: `align`, or by default 8, less where that would be too coarse."""
    if align != "auto":
        return align
    step = STEP
    while step > 1 and step * STEPS_AT_LEAST > size:
        step //= 2
    return step


def matched_units(parameters: int, units: Mapping[Kind, Units], ratio: float, step: int, allowed: Callable[[int], bool]) -> Kept:
    """Return the sizes at which `ratio` of all `parameters` is removed, the same in every layer at hand.

    Both kinds lose the same share. Groups are few, so their number removed is rounded down, further where `allowed` refuses what
    remains; neurons compensate for it, what remains of them rounded down to a multiple of `step`. Raises SettingError where that cannot be.
    """
    groups, neurons = units["groups"], units["neurons"]
    wanted = ratio * parameters
    removed = _groups_for(units, wanted, allowed)
    left = neurons.count - (wanted - removed * groups.parameters) / neurons.parameters
    kept = int(left // step) * step
    if kept <= 0:
        raise SettingError(
            f"ratio {ratio:g}: attention and feed-forward layers hold too little of the model for that; "
            f"at most {_most_of(parameters, units, step, allowed):.1%} of all parameters can go with widths in steps of {step}"
        )
    gone = removed * groups.parameters + (neurons.count - kept) * neurons.parameters
    check_rounding(ratio, _least(gone / parameters, kept + step >= neurons.count))
    return Kept(groups.count - removed, kept)


def nominal_units(units: Mapping[Kind, Units], head_size: int, ratio: float, allowed: Callable[[int], bool]) -> Kept:
    """Return the sizes without `ratio` of each layer's units (LLM-Pruner's own rounding).

    Removed are floor((C − floor(C·(1 − r))) / h) of C = n_kv·h key-value rows, and f − floor(f·(1 − r)) neurons. Raises SettingError
    where a kind would be gone.
    """
    groups, neurons = units["groups"].count, units["neurons"].count
    removed = _fewer((groups * head_size - _floor(groups * head_size * (1 - ratio))) // head_size, groups, allowed)
    kept = Kept(groups - removed, _floor(neurons * (1 - ratio)))
    if kept.groups <= 0 or kept.neurons <= 0:
        raise SettingError(
            f"ratio {ratio:g}: would leave {kept.groups} of {groups} groups of heads and {kept.neurons} of {neurons} neurons"
        )
    check_rounding(ratio, _least(1 / neurons, kept.neurons == neurons - 1 and not removed))
    return kept


def _groups_for(units: Mapping[Kind, Units], wanted: float, allowed: Callable[[int], bool]) -> int:
    """Return how many groups go with so many parameters, of which both kinds have the same share."""
    share = wanted / sum(kind.count * kind.parameters for kind in units.values())
    count = units["groups"].count
    return _fewer(min(int(share * count), count - 1), count, allowed)


def _most_of(parameters: int, units: Mapping[Kind, Units], step: int, allowed: Callable[[int], bool]) -> float:
    """Return the largest share of all parameters for which one step of neurons can stay beside the groups that go with it."""
    groups, neurons = units["groups"], units["neurons"]
    for removed in range(groups.count - 1, -1, -1):
        most = just_below((removed * groups.parameters + (neurons.count - step) * neurons.parameters) / parameters)
        if most <= 0 or _groups_for(units, most * parameters, allowed) >= removed:
            return max(most, 0.0)
    return 0.0


def _fewer(removed: int, count: int, allowed: Callable[[int], bool]) -> int:
    """Return the largest number of groups up to `removed` whose removal leaves an allowed number."""
    while 0 < removed < count and not allowed(count - removed):
        removed -= 1
    return removed


def _floor(value: float) -> int:
    """Round down, but not below a whole number that the float misses by its own rounding."""
    return math.floor(round(value, 6))


@dataclass(frozen=True)
class Slicing:
    """Parameters of a model whose stream is cut to d' directions a block (SliceGPT): square·d'² + linear·d' + constant."""

    square: int
    linear: int
    constant: int

    def parameters(self, width: int) -> int:
        """Return how many parameters are left at the width d'."""
        return self.square * width**2 + self.linear * width + self.constant


def slicing_of(shapes: Shapes, family: Family, layers: int, hidden_size: int, *, tied: bool) -> Slicing:
    """Count a sliced model from the dense one's tensor shapes.

    N = V·d' + V·d + Σ_l [(2n_q + 2n_kv)·h·d' + 2f·d' + d'²] + Σ_{l<L} [f·d' + d'²] + (f·d + d'·d): the last layer's output and the
    head keep the whole width d, norms have no gains, and two shortcuts per layer come in. Where embedding and head are one matrix it
    stays whole, with a shortcut behind it and the final norm's gain: V·d + d·d' + d in place of V·d' + V·d.
    """
    square, linear, constant = 2 * layers - 1, hidden_size, 0
    last = f"{family.in_layer(layers - 1, family.blocks[-1].write)}."
    for name, shape in shapes.items():
        match family.role(name):
            case Role.EMBEDDING:
                linear += hidden_size if tied else shape[0]
                constant += math.prod(shape)  # the head, by its own name in other checkpoints
            case Role.FINAL_NORM if tied:
                constant += hidden_size
            case Role.WRITE if not name.startswith(last):
                linear += math.prod(shape[1:])
            case Role.READ if len(shape) == 2:
                linear += shape[0]
            case Role.READ | Role.WRITE | Role.INSIDE:
                constant += math.prod(shape)
    return Slicing(square, linear, constant)


def matched_width(parameters: int, slicing: Slicing, hidden_size: int, ratio: float, step: int) -> int:
    """Return the largest multiple d' of `step` at which at least `ratio` of all `parameters` is gone.

    Raises SettingError where no width does.
    """
    for width in range((hidden_size - 1) // step * step, 0, -step):
        if slicing.parameters(width) <= (1 - ratio) * parameters:
            check_rounding(ratio, _least(1 - slicing.parameters(width) / parameters, width + step >= hidden_size))
            return width
    most = 1 - slicing.parameters(step) / parameters
    raise SettingError(
        f"ratio {ratio:g}: the head, the last layer's output and the shortcuts leave too much of the model for that; "
        f"at most {just_below(most):.1%} of all parameters can go with widths in steps of {step}"
    )


def nominal_width(hidden_size: int, ratio: float, step: int) -> int:
    """Return d' = floor((1 − s)·d), rounded down to a multiple of `step` (SliceGPT). Raises SettingError where nothing is left."""
    width = _floor((1 - ratio) * hidden_size) // step * step
    if width <= 0:
        raise SettingError(f"ratio {ratio:g}: leaves no width of {hidden_size} in steps of {step}")
    check_rounding(ratio, _least(1 - width / hidden_size, width + step >= hidden_size))
    return width


def _least(removed: float, is_least: bool) -> float:
    """Return what is removed where no less can be, else nothing: rounding up by a step of many is what every ratio sees."""
    return removed if is_least else 0.0
