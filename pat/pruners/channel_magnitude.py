"""Plain magnitude pruning of hidden channels: PAT's axis without its training. Asks whether a learned mask is worth anything.

A channel's score is the l2 norm of every weight attached to it. One set of channels for the whole model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from pat.checkpoints import checkpoint
from pat.families.known import Family, family_of
from pat.method.importance import weight_norms
from pat.pruners.channels import keep_most_important, width_of
from pat.pruners.job import PruneJob


def prune_by_magnitude(job: PruneJob, folder: Path) -> dict[str, Any]:
    """Write the source without its weakest channels into `folder`, a stock checkpoint; return the record of its sizes."""
    config = checkpoint.load_config(job.source)
    width_of(job)  # a ratio that comes to none is refused before anything is measured
    norms_D = channel_norms(job.source, family_of(config), config.hidden_size, tied=bool(config.tie_word_embeddings))
    return keep_most_important(job, folder, norms_D)


def channel_norms(source: Path, family: Family, hidden_size: int, *, tied: bool) -> Tensor:
    """Return the l2 norm of all weights attached to each channel, shape (D,), fp64."""
    return weight_norms(checkpoint.tensors(source), checkpoint.norm_gains(source, family), family, hidden_size, tied=tied)
