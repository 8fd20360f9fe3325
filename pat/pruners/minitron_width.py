"""Minitron-style width pruning: hidden channels by the size of their activations. PAT's axis, chosen once and from forward passes.

Of Minitron only the importance of hidden channels is taken: heads, neurons and depth stay, and tuning is the experiment's recipe, not
distillation. So it differs from channel magnitude in what a channel is judged by, and in nothing else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pat.checkpoints import checkpoint
from pat.pruners.activations import channel_activations, samples
from pat.pruners.channels import keep_most_important, width_of
from pat.pruners.job import PruneJob

SAMPLES = 1024


def prune_quiet_channels(job: PruneJob, folder: Path) -> dict[str, Any]:
    """Write the source without its least active channels into `folder`, a stock checkpoint; return the record of its sizes."""
    text = job.text()
    width_of(job)  # a ratio that comes to none is refused before anything is measured
    model = checkpoint.load_to_measure(job.source, text.device)
    activation_D = channel_activations(model, samples(job.source, text, SAMPLES))
    del model
    return keep_most_important(job, folder, activation_D)
