"""What can be taken out of a decoder layer without touching the stream: attention groups and feed-forward neurons.

Owns where a unit's weights are, how many units go for a wanted share of parameters, and the checkpoint without them. A group is a
key-value head with all query heads that share it, so that their number per group stays. Which units go is a pruner's question.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor
from transformers import AutoConfig

from pat import checkpoint
from pat.families import Family, head_size

Kind = Literal["groups", "neurons"]
NEURON_STEP = 8
"""Matrix kernels want multiples of 8 at least."""
STEPS_AT_LEAST = 64
"""A width must be choosable this finely, or small models would miss the wanted share."""


@dataclass(frozen=True)
class Place:
    """Where a tensor holds units: in which layer, of which kind, along which axis, in equal blocks one after the other."""

    layer: int
    kind: Kind
    axis: int


@dataclass(frozen=True)
class Units:
    """The units of one kind: how many a layer has, and how many parameters go with one of them taken out of every layer."""

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
    match = re.fullmatch(re.escape(family.layers) + r"\.(\d+)\.(.+)", module)
    if match is None:
        return None
    layer, name = int(match[1]), match[2]
    if name in family.head_rows:
        return Place(layer, "groups", 0)
    if name in family.neuron_rows:
        return Place(layer, "neurons", 0)
    if parameter == "weight" and name in (family.attention_output, family.mlp_output):
        return Place(layer, "groups" if name == family.attention_output else "neurons", 1)
    return None


def output_layers(family: Family) -> dict[Kind, str]:
    """Return, for each kind, the linear layer through which its units write to the stream: their columns."""
    return {"groups": family.attention_output, "neurons": family.mlp_output}


def units_of(source: Path, family: Family, config: Any) -> dict[Kind, Units]:
    """Return a checkpoint's units, counted from its tensors' shapes."""
    counts: dict[Kind, int] = {"groups": config.num_key_value_heads, "neurons": config.intermediate_size}
    totals: dict[Kind, int] = dict.fromkeys(counts, 0)
    for name, shape in checkpoint.tensor_shapes(source).items():
        if place := place_of(family, name):
            totals[place.kind] += shape[0] * (shape[1] if len(shape) == 2 else 1)
    return {kind: Units(count, totals[kind] // count) for kind, count in counts.items()}


def neuron_step(neurons: int, align: int | Literal["auto"]) -> int:
    """Return what a feed-forward width is a multiple of: `align`, or by default 8, less where that would be too coarse."""
    if align != "auto":
        return align
    step = NEURON_STEP
    while step > 1 and step * STEPS_AT_LEAST > neurons:
        step //= 2
    return step


def matched(parameters: int, units: Mapping[Kind, Units], ratio: float, step: int, allowed: Callable[[int], bool]) -> Kept:
    """Return the sizes at which `ratio` of all `parameters` is removed, the same in every layer.

    Both kinds lose the same share. Groups are few, so their number removed is rounded down, further where `allowed` refuses what
    remains; neurons make up for it, what remains of them rounded down to a multiple of `step`. Raises ValueError where that cannot be.
    """
    groups, neurons = units["groups"], units["neurons"]
    wanted = ratio * parameters
    share = wanted / (groups.count * groups.parameters + neurons.count * neurons.parameters)
    removed = min(int(share * groups.count), groups.count - 1)
    while not allowed(groups.count - removed):
        removed -= 1
    left = neurons.count - (wanted - removed * groups.parameters) / neurons.parameters
    kept = int(left // step) * step
    if kept <= 0:
        most = (removed * groups.parameters + (neurons.count - step) * neurons.parameters) / parameters
        raise ValueError(
            f"ratio {ratio:g}: attention and feed-forward layers hold too little of the model for that; "
            f"at most {most:.1%} of all parameters can go with widths in steps of {step}"
        )
    return Kept(groups.count - removed, kept)


class UnitCut:
    """Maps each tensor of a checkpoint to that of the model without the dropped units.

    `kept` says for each kind and layer which units survive, as booleans.
    """

    def __init__(self, family: Family, kept: Mapping[Kind, Sequence[Tensor]]) -> None:
        self.family = family
        self.kept = kept

    def __call__(self, name: str, tensor: Tensor) -> Tensor:
        """Return the tensor without the dropped units' rows or columns."""
        place = place_of(self.family, name)
        if place is None:
            return tensor
        kept_U = self.kept[place.kind][place.layer]
        index = kept_U.repeat_interleave(tensor.shape[place.axis] // len(kept_U)).nonzero().flatten()
        return tensor.index_select(place.axis, index)


def config_without(config: Any, family: Family, kept: Kept, *, biases: bool) -> Any | None:
    """Return the config of the model that keeps these sizes, of another type where the family's own refuses; None where both do."""
    heads = config.num_attention_heads // config.num_key_value_heads * kept.groups
    sizes = {
        "num_attention_heads": heads,
        "num_key_value_heads": kept.groups,
        "intermediate_size": kept.neurons,
        "head_dim": head_size(config),
    }
    fields = config.to_dict() | sizes
    if family.uneven_heads_as is None or config.hidden_size % heads == 0:
        return type(config).from_dict(fields)
    if biases:
        return None
    known = AutoConfig.for_model(family.uneven_heads_as).to_dict().keys() - {"model_type", "architectures"}
    shared = {name: value for name, value in fields.items() if name in known}
    return AutoConfig.for_model(family.uneven_heads_as, **shared, sliding_window=None)
