"""Plain magnitude pruning of hidden channels: PAT's axis without its training. Asks whether a learned mask is worth anything.

A channel's score is the l2 norm of every weight attached to it. One set of channels for the whole model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from pat.checkpoints import checkpoint
from pat.checkpoints.fidelity import gap_to_zeroed
from pat.checkpoints.merge import record_of, write_folded
from pat.families.known import Family, family_of
from pat.method.fold import Fold
from pat.method.importance import weight_norms
from pat.method.mask import largest
from pat.models.width import target_width
from pat.pruners.job import PruneJob


def prune_by_magnitude(job: PruneJob, folder: Path) -> dict[str, Any]:
    """Write the source without its weakest channels into `folder`, a stock checkpoint; return the record of its sizes."""
    config = checkpoint.load_config(job.source)
    family, tied = family_of(config), bool(config.tie_word_embeddings)
    width = target_width(config.hidden_size, config.num_attention_heads, job.ratio, job.align)
    kept_D = largest(channel_norms(job.source, family, config.hidden_size, tied=tied), width)
    written = write_folded(job.source, folder, Fold(family, kept_D, tied=tied), "prune")
    return record_of(job.source, folder, job.ratio) | gap_to_zeroed(written, kept_D)


def channel_norms(source: Path, family: Family, hidden_size: int, *, tied: bool) -> Tensor:
    """Return the l2 norm of all weights attached to each channel, shape (D,), fp64."""
    return weight_norms(checkpoint.tensors(source), checkpoint.norm_gains(source, family), family, hidden_size, tied=tied)
