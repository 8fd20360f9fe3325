"""Layers and neurons: a model gets shallower and its feed-forward layers narrower, by as much of each as disturbs text least.

Every number of layers that the share asked for allows is tried; neurons make up the rest of the share. Layers go in the order of
depth_search.py, neurons by their Fisher information in what is left (neurons.py), and the number taken is that whose cut model foretells
best a part of the calibration text on which nothing was measured. The output is a stock model, all of whose layers are alike.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pat.checkpoints import checkpoint
from pat.checkpoints.fidelity import gap_to_changed
from pat.checkpoints.merge import record_of, write_changed
from pat.data.calibration import blocks
from pat.errors import SettingError
from pat.families.known import Family, Kind, family_of, kv_heads, neurons
from pat.io.progress import say
from pat.method.mask import largest
from pat.models.depth import neurons_by_layers
from pat.pruners.activations import SAMPLE_LENGTH
from pat.pruners.depth_search import Batch, dropping_order, mean_loss, without_layers
from pat.pruners.job import PruneJob
from pat.pruners.llm_pruner import silence
from pat.pruners.neurons import gated, neuron_information
from pat.pruners.shortgpt import config_of_layers, renumbered, share_of_a_layer, skip_layers
from pat.pruners.units import UnitCut, queries_of, units_of

SAMPLES = 256
ROWS_AT_ONCE = 64
"""Of 128 tokens, in a forward pass."""
ROWS_BACKWARD = 16
"""A backward pass holds the activations of all layers."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cut:
    """What goes: these layers, and of every other layer all neurons but the kept ones; with the loss on text that it leads to."""

    dropped: tuple[int, ...]
    kept: dict[int, Tensor]
    loss: float

    @property
    def neurons(self) -> int:
        """How many neurons a layer keeps."""
        return int(next(iter(self.kept.values())).sum())


def prune_layers_and_neurons(job: PruneJob, folder: Path) -> dict[str, Any]:
    """Write the source without its least needed layers and neurons into `folder`; return the record of its sizes.

    `layers` in it says how many there are and which went (numbered from 0, in the order in which they went), `units` how many neurons
    a layer has, `tried` the loss of each combination in nats per token; `ratio_effective` is the share of all parameters removed. Raises
    SettingError where the layers hold too little of the model for the ratio.
    """
    config = checkpoint.load_config(job.source)
    widths = possible_widths(job, config)
    model = checkpoint.load_to_measure(job.source, job.text().device)
    measured, judged = _texts(job)
    order = dropping_order(model, _batches(measured, ROWS_AT_ONCE), max(widths))
    cuts = [_cut(model, order[:dropped], width, measured, judged) for dropped, width in sorted(widths.items())]
    del model
    best = min(cuts, key=lambda cut: cut.loss)
    logger.info("of %d layers, numbered from 0, these go: %s", config.num_hidden_layers, ", ".join(map(str, best.dropped)) or "none")
    record = _write(job, config, best, folder)
    record["tried"] = [{"layers_dropped": len(cut.dropped), "neurons": cut.neurons, "loss": cut.loss} for cut in cuts]
    return record


def possible_widths(job: PruneJob, config: Any) -> dict[int, int]:
    """Return how many neurons a layer keeps by how many layers go, for each number that meets the ratio. Raises SettingError for none."""
    family, count, width = family_of(config), config.num_hidden_layers, neurons(config)
    parameters = checkpoint.parameter_counts(job.source, config)["unique"]
    of_a_layer = share_of_a_layer(job.source, family, config) * parameters
    of_a_neuron = units_of(job.source, family, config)["neurons"].parameters / count
    return neurons_by_layers(count, parameters, of_a_layer, of_a_neuron, width, job.ratio, job.align)


def _texts(job: PruneJob) -> tuple[Batch, Batch]:
    """Return the calibration text in two parts: to measure on, and to judge by."""
    length = min(SAMPLE_LENGTH, checkpoint.load_config(job.source).max_position_embeddings)
    text = blocks(job.text(), checkpoint.load_tokenizer(job.source), length, SAMPLES * length)
    rows = len(text.ids_NT)
    even, odd = slice(0, rows, 2), slice(1, rows, 2)
    if not all(bool(text.mask_NT[part, 1:].any()) for part in (even, odd)):
        raise SettingError(f"--calibration: {int(text.mask_NT.sum())} tokens are too few to measure on one part and judge by another")
    measured = {"input_ids": text.ids_NT[even], "attention_mask": text.mask_NT[even]}
    return measured, {"input_ids": text.ids_NT[odd], "attention_mask": text.mask_NT[odd]}


def _batches(part: Batch, rows: int) -> list[Batch]:
    starts = range(0, len(part["input_ids"]), rows)
    return [{name: tensor[start : start + rows] for name, tensor in part.items()} for start in starts]


def _cut(model: PreTrainedModel, dropped: Sequence[int], width: int, measured: Batch, judged: Batch) -> Cut:
    """Return the cut of these layers and of the neurons of least information beside them, with its loss."""
    rest = [layer for layer in range(model.config.num_hidden_layers) if layer not in dropped]
    with without_layers(model, dropped):
        information = neuron_information(model, _batches(measured, ROWS_BACKWARD), rest)
        kept = {layer: largest(information_I, width) for layer, information_I in information.items()}
        with gated(model, {layer: kept_I.to(model.device, torch.float32) for layer, kept_I in kept.items()}):
            loss = mean_loss(model, _batches(judged, ROWS_AT_ONCE))
    say(f"prune: {len(dropped)} layers and all but {width} neurons of each other one gone: {loss:.3f} nats per token")
    return Cut(tuple(dropped), kept, loss)


def _write(job: PruneJob, config: Any, cut: Cut, folder: Path) -> dict[str, Any]:
    family, rest = family_of(config), sorted(cut.kept)
    kept = _by_kind(config, cut)
    smaller = config_of_layers(config, rest)
    setattr(smaller, family.neurons, cut.neurons)
    change = _change(family, UnitCut(family, kept, queries_of(config)), rest)
    written = write_changed(job.source, folder, change, smaller, "prune")

    def unheard(model: PreTrainedModel) -> None:
        silence(model, kept)
        skip_layers(model, rest)

    gap = gap_to_changed(written, unheard)
    record = record_of(job.source, folder, job.ratio, share_of="parameters") | gap
    record["layers"] = {"before": config.num_hidden_layers, "after": len(rest), "dropped": list(cut.dropped)}
    record["units"] = {"neurons": {"before": neurons(config), "after": cut.neurons}}
    return record


def _by_kind(config: Any, cut: Cut) -> dict[Kind, list[Tensor]]:
    """Return which units every layer keeps, as UnitCut takes them: all groups, and in the dropped layers all neurons too."""
    count = config.num_hidden_layers
    whole_I = torch.ones(neurons(config), dtype=torch.bool)
    groups_G = torch.ones(kv_heads(config), dtype=torch.bool)
    return {"groups": [groups_G] * count, "neurons": [cut.kept.get(layer, whole_I) for layer in range(count)]}


def _change(family: Family, cut: UnitCut, rest: Sequence[int]) -> Any:
    def change(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
        new_name = renumbered(name, family, rest)
        if new_name is not None:
            yield new_name, cut(name, tensor)

    return change
