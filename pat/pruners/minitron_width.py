"""Minitron-style width pruning: hidden channels by the size of their activations. PAT's axis, chosen once and from forward passes.

Of Minitron only the importance of hidden channels is taken: heads, neurons and depth stay, and tuning is the experiment's recipe, not
distillation. So it differs from channel magnitude in what a channel is judged by, and in nothing else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pat.checkpoints import checkpoint
from pat.checkpoints.fidelity import gap_to_zeroed
from pat.checkpoints.merge import record_of, write_folded
from pat.families.known import family_of
from pat.method.fold import Fold
from pat.method.mask import largest
from pat.models.width import target_width
from pat.pruners.activations import channel_activations, samples
from pat.pruners.job import PruneJob

SAMPLES = 1024


def prune_quiet_channels(job: PruneJob, folder: Path) -> dict[str, Any]:
    """Write the source without its least active channels into `folder`, a stock checkpoint; return the record of its sizes."""
    text, config = job.text(), checkpoint.load_config(job.source)
    width = target_width(config.hidden_size, config.num_attention_heads, job.ratio, job.align)
    model = checkpoint.load_to_measure(job.source, text.device)
    kept_D = largest(channel_activations(model, samples(job.source, text, SAMPLES)), width)
    del model
    written = write_folded(job.source, folder, Fold(family_of(config), kept_D, tied=bool(config.tie_word_embeddings)), "prune")
    return record_of(job.source, folder, job.ratio) | gap_to_zeroed(written, kept_D)
