"""ShortGPT: removes whole decoder layers, those that turn the stream least on calibration text; widths stay.

The number of layers is the one whose share of all parameters comes nearest to the ratio asked for, the larger one where two are
equally near; the record has both shares.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pat.checkpoints import checkpoint
from pat.checkpoints.fidelity import gap_to_changed
from pat.checkpoints.merge import record_of, write_changed
from pat.families.known import Family, family_of
from pat.method.mask import largest
from pat.models.depth import layers_to_drop
from pat.pruners.activations import block_influence, samples
from pat.pruners.job import PruneJob

SAMPLES = 128
logger = logging.getLogger(__name__)


def prune_layers(job: PruneJob, folder: Path) -> dict[str, Any]:
    """Write the source without its least influential layers into `folder`; return the record of its sizes.

    `layers` in it says how many there are, which went (numbered from 0) and each one's block influence; `ratio_effective` is the share
    of all parameters removed.
    """
    text, config = job.text(), checkpoint.load_config(job.source)
    family, count = family_of(config), config.num_hidden_layers
    dropped = layers_to_drop(count, share_of_a_layer(job.source, family, config), job.ratio)
    influence_L = block_influence(checkpoint.load_to_measure(job.source, text.device), samples(job.source, text, SAMPLES))
    kept = largest(influence_L, count - dropped).nonzero().flatten().tolist()
    gone = [layer for layer in range(count) if layer not in kept]
    logger.info("of %d layers, numbered from 0, these go: %s", count, ", ".join(map(str, gone)))

    def change(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
        new_name = renumbered(name, family, kept)
        if new_name is not None:
            yield new_name, tensor

    written = write_changed(job.source, folder, change, config_of_layers(config, kept), "prune")
    gap = gap_to_changed(written, lambda model: skip_layers(model, kept))  # they pass on what they get
    record = record_of(job.source, folder, job.ratio, share_of="parameters") | gap
    record["layers"] = {
        "before": count,
        "after": len(kept),
        "dropped": gone,
        "influence": influence_L.tolist(),
    }
    return record


def share_of_a_layer(source: Path, family: Family, config: Any) -> float:
    """Return which part of all parameters, each counted once, one decoder layer has; all layers of a stock model are alike."""
    counts = checkpoint.parameter_counts(source, config)
    shapes = checkpoint.tensor_shapes(source)
    in_layers = sum(math.prod(shape) for name, shape in shapes.items() if family.place(name) is not None)
    share: float = in_layers / config.num_hidden_layers / counts["unique"]
    return share


def renumbered(name: str, family: Family, kept: Sequence[int]) -> str | None:
    """Return a tensor's name after the layers that are not `kept` have gone, None where it goes with them."""
    if (place := family.place(name)) is None:
        return name
    layer, within = place
    return family.in_layer(kept.index(layer), within) if layer in kept else None


def config_of_layers(config: Any, kept: Sequence[int]) -> Any:
    """Return the config of the model that keeps these layers, each with what the config says of it."""
    fields = config.to_dict() | {"num_hidden_layers": len(kept)}
    lists = {name: fields[name] for name in family_of(config).per_layer if fields.get(name)}
    return type(config).from_dict(fields | {name: [values[layer] for layer in kept] for name, values in lists.items()})


def skip_layers(model: Any, kept: Sequence[int]) -> None:
    """Make every layer of `model` that is not `kept` pass on its input: it is computed and then ignored."""

    def hand_on(_module: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor) -> Tensor:
        return inputs[0]

    for place, layer in enumerate(model.get_submodule(family_of(model.config).layers)):
        if place not in kept:
            layer.register_forward_hook(hand_on)
