"""Pruners that work on a finished checkpoint. A new one is a module here and an entry in PRUNERS.

A pruner takes its job, writes a checkpoint into an empty folder and returns the record of its sizes and of how far it is from the
model it stands for.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pat.baselines.channel_fisher import prune_unfelt_channels
from pat.baselines.channel_magnitude import prune_by_magnitude
from pat.baselines.job import PruneJob
from pat.baselines.layers_and_neurons import prune_layers_and_neurons
from pat.baselines.llm_pruner import prune_in_window, prune_units
from pat.baselines.minitron_width import prune_quiet_channels
from pat.baselines.shortgpt import prune_layers
from pat.baselines.slicegpt import prune_block_by_block
from pat.baselines.slicegpt_1q import prune_rotated
from pat.baselines.wanda_sp import prune_by_activation

Pruner = Callable[[PruneJob, Path], dict[str, Any]]

PRUNERS: dict[str, Pruner] = {
    "channel-fisher": prune_unfelt_channels,
    "channel-magnitude": prune_by_magnitude,
    "layers-and-neurons": prune_layers_and_neurons,
    "llm-pruner": prune_in_window,
    "llm-pruner-uniform": prune_units,
    "minitron-width": prune_quiet_channels,
    "shortgpt": prune_layers,
    "slicegpt": prune_block_by_block,
    "slicegpt-1q": prune_rotated,
    "wanda-sp": prune_by_activation,
}
