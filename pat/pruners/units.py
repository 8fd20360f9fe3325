"""What can be taken out of a decoder layer without touching the stream: attention groups and feed-forward neurons.

Owns the checkpoint without them; how many go is sizes.py's, which ones a pruner's. A group is a key-value head with all query heads
that share it, so that their number per group stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig

from pat.checkpoints import checkpoint
from pat.families.known import Family, Kind, head_size, kv_heads, neurons
from pat.models.sizes import Kept, Place, Units, place_of, units_in


def output_layers(family: Family) -> dict[Kind, str]:
    """Return, for each kind, the linear layer through which its units write to the stream: their columns."""
    return {block.kind: block.write for block in family.blocks}


def by_unit(place: Place, along: Tensor, count: int, queries: int) -> Tensor:
    """Return the sum over each of `count` units of what belongs to the entries of a tensor's axis of units, (count,).

    A group has `queries` query heads, whose entries lie together: with grouped queries a key-value head's block is all of theirs.
    """
    parts = along.split(place.lengths(len(along), queries))
    return torch.stack([part.view(count, -1).sum(1) for part in parts]).sum(0) if len(parts) > 1 else parts[0].view(count, -1).sum(1)


def queries_of(config: Any) -> int:
    """Return how many query heads share a key-value head."""
    queries: int = config.num_attention_heads // kv_heads(config)
    return queries


def units_of(source: Path, family: Family, config: Any, layers: range | None = None) -> dict[Kind, Units]:
    """Return a checkpoint's units in these layers, by default all, counted from its tensors' shapes."""
    everywhere = range(config.num_hidden_layers)
    shapes = checkpoint.tensor_shapes(source)
    return units_in(shapes, family, kv_heads(config), neurons(config), everywhere if layers is None else layers)


class UnitCut:
    """Maps each tensor of a checkpoint to that of the model without the dropped units.

    `kept` says for each kind and layer which units survive, as booleans; a group has `queries` query heads.
    """

    def __init__(self, family: Family, kept: Mapping[Kind, Sequence[Tensor]], queries: int) -> None:
        self.family = family
        self.kept = kept
        self.queries = queries

    def __call__(self, name: str, tensor: Tensor) -> Tensor:
        """Return the tensor without the dropped units' rows or columns."""
        place = place_of(self.family, name)
        if place is None:
            return tensor
        kept_U = self.kept[place.kind][place.layer]
        lengths = place.lengths(tensor.shape[place.axis], self.queries)
        kept = torch.cat([kept_U.repeat_interleave(length // len(kept_U)) for length in lengths])
        return tensor.index_select(place.axis, kept.nonzero().flatten())


def config_without(config: Any, family: Family, kept: Kept, *, biases: bool) -> Any | None:
    """Return the config of the model that keeps these sizes, of another type where the family's own refuses; None where both do."""
    if family.heads_fill_width:
        return type(config).from_dict(config.to_dict() | {family.neurons: kept.neurons}) if kept.groups == kv_heads(config) else None
    heads = queries_of(config) * kept.groups
    sizes = {
        "num_attention_heads": heads,
        "num_key_value_heads": kept.groups,
        family.neurons: kept.neurons,
        "head_dim": head_size(config),
    }
    fields = config.to_dict() | sizes
    with suppress(*checkpoint.REFUSALS):
        return type(config).from_dict(fields)
    if family.uneven_heads_as is None or biases:
        return None
    known = AutoConfig.for_model(family.uneven_heads_as).to_dict().keys() - {"model_type", "architectures"}
    shared = {name: value for name, value in fields.items() if name in known}
    return AutoConfig.for_model(family.uneven_heads_as, **shared, sliding_window=None)
