"""What can be taken out of a decoder layer without touching the stream: attention groups and feed-forward neurons.

Owns the checkpoint without them; how many go is sizes.py's, which ones a pruner's. A group is a key-value head with all query heads
that share it, so that their number per group stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import AutoConfig

from pat import checkpoint
from pat.families import Family, head_size
from pat.sizes import Kept, Kind, Units, place_of, units_in


def output_layers(family: Family) -> dict[Kind, str]:
    """Return, for each kind, the linear layer through which its units write to the stream: their columns."""
    return {"groups": family.attention_output, "neurons": family.mlp_output}


def units_of(source: Path, family: Family, config: Any, layers: range | None = None) -> dict[Kind, Units]:
    """Return a checkpoint's units in these layers, by default all, counted from its tensors' shapes."""
    everywhere = range(config.num_hidden_layers)
    shapes = checkpoint.tensor_shapes(source)
    return units_in(shapes, family, config.num_key_value_heads, config.intermediate_size, everywhere if layers is None else layers)


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
