"""What pruners of hidden channels have in common: the width that a ratio comes to, and the stock checkpoint of what stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from pat.checkpoints import checkpoint
from pat.checkpoints.fidelity import gap_to_zeroed
from pat.checkpoints.merge import record_of, write_folded
from pat.families.known import family_of
from pat.method.fold import Fold
from pat.method.mask import largest
from pat.models.width import width_at
from pat.pruners.job import PruneJob


def width_of(job: PruneJob) -> int:
    """Return how many channels stay. Raises SettingError on a ratio that comes to no width."""
    config = checkpoint.load_config(job.source)
    return width_at(config, job.ratio, job.align)


def keep_most_important(job: PruneJob, folder: Path, importance_D: Tensor) -> dict[str, Any]:
    """Write the source with its most important channels alone into `folder`, a stock checkpoint; return the record of its sizes.

    `kept` in it is the channels that stay, ascending.
    """
    config = checkpoint.load_config(job.source)
    kept_D = largest(importance_D.cpu(), width_of(job))
    written = write_folded(job.source, folder, Fold(family_of(config), kept_D, tied=bool(config.tie_word_embeddings)), "prune")
    record = record_of(job.source, folder, job.ratio) | gap_to_zeroed(written, kept_D)
    return record | {"kept": kept_D.nonzero().flatten().tolist()}
