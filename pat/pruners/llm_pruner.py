"""LLM-Pruner: removes attention heads and feed-forward neurons by first-order Taylor importance; the hidden size stays.

As published, the first and last layers stay whole, which makes layers of two shapes and a reshaped model. Uniform over all layers the
output is a stock model. Departures: sizes are solved for the share of all parameters that goes unless `nominal` is asked for, and a
key-value head is scored with the query heads that go with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pat.checkpoints import checkpoint
from pat.checkpoints.fidelity import gap_to_changed
from pat.checkpoints.merge import record_of, write_changed
from pat.data.calibration import Calibration, blocks
from pat.errors import UserError
from pat.families.known import Kind, family_of, head_size, kv_heads, neurons
from pat.method.mask import largest
from pat.models.reshaped import ReshapedConfig
from pat.models.sizes import Kept, Units, matched_units, nominal_units, step_of, window
from pat.pruners.job import PruneJob
from pat.pruners.taylor import unit_scores
from pat.pruners.units import UnitCut, config_without, output_layers, queries_of, units_of

SEQUENCE_LENGTH = 128
SEQUENCES = 128


def prune_in_window(job: PruneJob, folder: Path) -> dict[str, Any]:
    """Write the source without the least important units of its inner layers into `folder`, a reshaped model; return the record.

    `ratio_effective` in it is the share of all parameters removed, `layers` the first and last layer that lost units.
    """
    config = checkpoint.load_config(job.source)
    inner = window(config.num_hidden_layers, job.settings.protect_first, job.settings.protect_last)
    units = units_of(job.source, family_of(config), config, inner)
    sizes = sizes_for(job, units, uniform=False)
    kept = most_important(sizes, measured_scores(job.source, job.text(), units, inner), inner)
    groups, neurons = ([int(kept_U.sum()) for kept_U in kept[kind]] for kind in ("groups", "neurons"))
    record = write_kept(job, kept, ReshapedConfig.of(config, groups, neurons), folder)
    return record | {"units": units_record(units, sizes), "layers": {"first": inner.start, "last": inner.stop - 1}}


def prune_units(job: PruneJob, folder: Path) -> dict[str, Any]:
    """Write the source without the least important units of every layer into `folder`; return the record of its sizes.

    `ratio_effective` in it is the share of all parameters removed, for the hidden size stays as it is.
    """
    config = checkpoint.load_config(job.source)
    everywhere = range(config.num_hidden_layers)
    units = units_of(job.source, family_of(config), config)
    sizes = sizes_for(job, units)
    return write_most_important(job, units, sizes, measured_scores(job.source, job.text(), units, everywhere), folder)


def write_most_important(
    job: PruneJob, units: Mapping[Kind, Units], sizes: Kept, scores: Mapping[Kind, Sequence[Tensor]], folder: Path
) -> dict[str, Any]:
    """Write the source with the `sizes` best-scored units of every layer into `folder`, a stock model; return the record."""
    config = checkpoint.load_config(job.source)
    kept = most_important(sizes, scores, range(config.num_hidden_layers))
    smaller = config_without(config, family_of(config), sizes, biases=has_biases(job.source))
    return write_kept(job, kept, smaller, folder) | {"units": units_record(units, sizes)}


def most_important(sizes: Kept, scores: Mapping[Kind, Sequence[Tensor]], layers: range) -> dict[Kind, list[Tensor]]:
    """Return which units stay, by kind and layer: the `sizes` best-scored ones in `layers`, all in the others."""
    counts: dict[Kind, int] = {"groups": sizes.groups, "neurons": sizes.neurons}
    return {
        kind: [
            largest(score, counts[kind]) if layer in layers else torch.ones_like(score, dtype=torch.bool)
            for layer, score in enumerate(found)
        ]
        for kind, found in scores.items()
    }


def write_kept(job: PruneJob, kept: Mapping[Kind, Sequence[Tensor]], smaller: Any, folder: Path) -> dict[str, Any]:
    """Write the source with the kept units and the config `smaller` into `folder`; return the record of its sizes."""
    config = checkpoint.load_config(job.source)
    cut = UnitCut(family_of(config), kept, queries_of(config))

    def change(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
        yield name, cut(name, tensor)

    written = write_changed(job.source, folder, change, smaller, "prune")
    gap = gap_to_changed(written, lambda model: silence(model, kept))
    return record_of(job.source, folder, job.ratio, share_of="parameters") | gap


def units_record(units: Mapping[Kind, Units], sizes: Kept) -> dict[str, dict[str, int]]:
    """Return how many units a pruned layer had and has, by kind."""
    return {
        "groups": {"before": units["groups"].count, "after": sizes.groups},
        "neurons": {"before": units["neurons"].count, "after": sizes.neurons},
    }


def sizes_for(job: PruneJob, units: Mapping[Kind, Units], *, uniform: bool = True) -> Kept:
    """Return how many units a layer keeps. Raises UserError where the config's heads do not fit into groups.

    Sizes that are `uniform` over all layers are such that a stock config takes them.
    """
    config = checkpoint.load_config(job.source)
    family, biases = family_of(config), has_biases(job.source)
    if config.num_attention_heads % kv_heads(config):
        raise UserError(
            f"{job.source / 'config.json'}: num_attention_heads={config.num_attention_heads} is not a multiple of "
            f"num_key_value_heads={kv_heads(config)}; heads cannot be removed in groups"
        )

    def allowed(groups: int) -> bool:
        if family.holds_together("groups"):
            return False
        return not uniform or config_without(config, family, Kept(groups, neurons(config)), biases=biases) is not None

    if job.settings.size == "nominal":
        return nominal_units(units, head_size(config), job.ratio, allowed)
    parameters = checkpoint.parameter_counts(job.source, config)["unique"]
    return matched_units(parameters, units, job.ratio, step_of(neurons(config), job.align), allowed)


def has_biases(source: Path) -> bool:
    """Return whether any of the checkpoint's layers has a bias."""
    return any(name.endswith(".bias") for name in checkpoint.tensor_shapes(source))


def measured_scores(source: Path, calibration: Calibration, units: Mapping[Kind, Units], layers: range) -> dict[Kind, list[Tensor]]:
    """Return each unit's importance on the calibration text by kind and layer, zeros outside `layers`."""
    config = checkpoint.load_config(source)
    length = min(SEQUENCE_LENGTH, config.max_position_embeddings)
    text = blocks(calibration, checkpoint.load_tokenizer(source), length, SEQUENCES * SEQUENCE_LENGTH)
    model = checkpoint.load_to_measure(source, calibration.device)
    at_once = SEQUENCES * SEQUENCE_LENGTH // length  # as much as is asked for by default: the logits of a longer text fill any memory
    return unit_scores(model, list(text.batches(at_once)), units, layers)


@torch.no_grad()
def silence(model: Any, kept: Mapping[Kind, Sequence[Tensor]]) -> None:
    """Set the output columns of the dropped units to zero, in place: they are computed and then not heard."""
    family = family_of(model.config)
    for kind, output in output_layers(family).items():
        for layer, kept_U in enumerate(kept[kind]):
            weight = model.get_parameter(f"{family.in_layer(layer, output)}.weight")
            weight.view(weight.shape[0], len(kept_U), -1)[:, ~kept_U] = 0.0
