"""Wanda-sp: removes attention heads and feed-forward neurons by weight times activation, from forward passes alone.

A unit's score is that of the output columns it feeds, Σ_i |W_ij| · ‖x_j‖₂ (Wanda), summed over a group's columns. Sizes, units and
what goes with them are as in LLM-Pruner uniform over the layers, so that the two differ in the score alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pat.checkpoints import checkpoint
from pat.families.known import Kind, family_of
from pat.models.sizes import Units
from pat.pruners.activations import Batches, input_norms, samples
from pat.pruners.job import PruneJob
from pat.pruners.llm_pruner import sizes_for, write_most_important
from pat.pruners.units import output_layers, units_of

SAMPLES = 128


def prune_by_activation(job: PruneJob, folder: Path) -> dict[str, Any]:
    """Write the source without the units that say least to the stream into `folder`; return the record of its sizes.

    `ratio_effective` in it is the share of all parameters removed, for the hidden size stays as it is.
    """
    text, config = job.text(), checkpoint.load_config(job.source)
    units = units_of(job.source, family_of(config), config)
    sizes = sizes_for(job, units)
    model = checkpoint.load_to_measure(job.source, text.device)
    scores = unit_scores(model, samples(job.source, text, SAMPLES), units)
    del model
    return write_most_important(job, units, sizes, scores, folder)


@torch.no_grad()
def unit_scores(model: PreTrainedModel, batches: Batches, units: Mapping[Kind, Units]) -> dict[Kind, list[Tensor]]:
    """Return each unit's Σ_j Σ_i |W_ij| · ‖x_j‖₂ over its columns j of the output layer, fp64 on the CPU, by kind and layer."""
    family = family_of(model.config)
    names: dict[Kind, list[str]] = {
        kind: [family.in_layer(layer, output) for layer in range(model.config.num_hidden_layers)]
        for kind, output in output_layers(family).items()
    }
    norms = input_norms(model, batches, [name for of_kind in names.values() for name in of_kind])

    def score(name: str, count: int) -> Tensor:
        columns_I = model.get_parameter(f"{name}.weight").abs().sum(0, dtype=torch.float64) * norms[name]
        return columns_I.view(count, -1).sum(1).cpu()

    return {kind: [score(name, units[kind].count) for name in of_kind] for kind, of_kind in names.items()}
