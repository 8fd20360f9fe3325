"""LLM-Pruner: removes attention heads and feed-forward neurons by first-order Taylor importance; the hidden size stays.

Every layer loses the same number of units, so that the output is a stock model. The paper's window, which keeps the first and last
layers whole, makes layers of two shapes; no stock class holds those, and it needs a registered class of its own. Departures: sizes
are solved for the share of all parameters that goes, and a key-value head is scored with the query heads that go with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pat import checkpoint
from pat.baselines.job import PruneJob
from pat.calibration import Calibration, blocks
from pat.errors import UserError
from pat.families import family_of
from pat.mask import largest
from pat.merge import gap_between, record_of, write_changed
from pat.taylor import unit_scores
from pat.units import Kept, Kind, UnitCut, Units, config_without, matched, neuron_step, output_layers, units_of

SEQUENCE_LENGTH = 128
SEQUENCES = 128


def prune_units(job: PruneJob, folder: Path) -> dict[str, Any]:
    """Write the source without its least important units into `folder`; return the record of its sizes.

    `ratio_effective` in it is the share of all parameters removed, for the hidden size stays as it is.
    """
    config = checkpoint.load_config(job.source)
    units = units_of(job.source, family_of(config), config)
    sizes = sizes_for(job, units)
    return write_most_important(job, units, sizes, measured_scores(job.source, job.text(), units), folder)


def write_most_important(
    job: PruneJob, units: Mapping[Kind, Units], sizes: Kept, scores: Mapping[Kind, Sequence[Tensor]], folder: Path
) -> dict[str, Any]:
    """Write the source with the `sizes` best-scored units of each layer into `folder`; return the record of its sizes."""
    config = checkpoint.load_config(job.source)
    family = family_of(config)
    kept: dict[Kind, list[Tensor]] = {
        "groups": [largest(score, sizes.groups) for score in scores["groups"]],
        "neurons": [largest(score, sizes.neurons) for score in scores["neurons"]],
    }
    cut = UnitCut(family, kept)
    named = ((name, cut(name, tensor)) for name, tensor in checkpoint.unique_tensors(job.source, config))
    write_changed(job.source, folder, named, config_without(config, family, sizes, biases=has_biases(job.source)), "prune")
    record = record_of(job.source, folder, job.ratio) | gap_to_zero_columns(job.source, kept, folder)
    counts = record["parameters"]
    record["ratio_effective"] = 1.0 - counts["after"]["unique"] / counts["before"]["unique"]
    record["units"] = {
        "groups": {"before": units["groups"].count, "after": sizes.groups},
        "neurons": {"before": units["neurons"].count, "after": sizes.neurons},
    }
    return record


def sizes_for(job: PruneJob, units: Mapping[Kind, Units]) -> Kept:
    """Return how many units a layer keeps. Raises UserError where the config's heads do not fit into groups."""
    config = checkpoint.load_config(job.source)
    family, biases = family_of(config), has_biases(job.source)
    if config.num_attention_heads % config.num_key_value_heads:
        raise UserError(
            f"{job.source / 'config.json'}: num_attention_heads={config.num_attention_heads} is not a multiple of "
            f"num_key_value_heads={config.num_key_value_heads}; heads cannot be removed in groups"
        )

    def allowed(groups: int) -> bool:
        return config_without(config, family, Kept(groups, config.intermediate_size), biases=biases) is not None

    parameters = checkpoint.parameter_counts(job.source, family.embedding, family.head, tied=bool(config.tie_word_embeddings))["unique"]
    return matched(parameters, units, job.ratio, neuron_step(config.intermediate_size, job.align), allowed)


def has_biases(source: Path) -> bool:
    """Return whether any of the checkpoint's layers has a bias."""
    return any(name.endswith(".bias") for name in checkpoint.tensor_shapes(source))


def measured_scores(source: Path, calibration: Calibration, units: Mapping[Kind, Units]) -> dict[Kind, list[Tensor]]:
    """Return each unit's importance on the calibration text."""
    config = checkpoint.load_config(source)
    length = min(SEQUENCE_LENGTH, config.max_position_embeddings)
    text = blocks(calibration, checkpoint.load_tokenizer(source), length, SEQUENCES * SEQUENCE_LENGTH)
    (batch,) = text.batches(len(text.ids_NT))
    return unit_scores(checkpoint.load_to_measure(source, calibration.device), batch, units)


def gap_to_zero_columns(source: Path, kept: Mapping[Kind, Sequence[Tensor]], pruned: Path) -> dict[str, Any]:
    """As the merge's gap, between `source` with what dropped units write to the stream set to zero, and the pruned checkpoint."""

    def zeroed(dtype: torch.dtype) -> nn.Module:
        model = checkpoint.load_model(source, dtype)
        silence(model, kept)
        return model

    return gap_between(zeroed, pruned, source)


@torch.no_grad()
def silence(model: Any, kept: Mapping[Kind, Sequence[Tensor]]) -> None:
    """Set the output columns of the dropped units to zero, in place: they are computed and then not heard."""
    family = family_of(model.config)
    for kind, output in output_layers(family).items():
        for layer, kept_U in enumerate(kept[kind]):
            weight = model.get_parameter(f"{family.layers}.{layer}.{output}.weight")
            weight.view(weight.shape[0], len(kept_U), -1)[:, ~kept_U] = 0.0
