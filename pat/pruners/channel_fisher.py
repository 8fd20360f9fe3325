"""Hidden channels by their Fisher information: what PAT's mask chooses from, chosen once, before or after tuning.

A channel's score is the sum over rows of text of (∂L/∂m)², m the channel's mask, as `mask: fisher` has it: what the loss feels of the
channel to second order. One set of channels for the whole model. Set beside PAT it asks whether learning the mask is worth anything.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pat.checkpoints import checkpoint
from pat.checkpoints.fidelity import gap_to_zeroed
from pat.checkpoints.merge import record_of, write_folded
from pat.data.calibration import blocks_for
from pat.families.known import family_of
from pat.method.fold import Fold
from pat.method.importance import fisher, gradient_batches
from pat.method.mask import largest
from pat.models.width import target_width
from pat.pruners.job import PruneJob


def prune_unfelt_channels(job: PruneJob, folder: Path) -> dict[str, Any]:
    """Write the source without the channels that the loss feels least into `folder`, a stock checkpoint; return the record of its sizes."""
    text, config = job.text(), checkpoint.load_config(job.source)
    width = target_width(config.hidden_size, config.num_attention_heads, job.ratio, job.align)
    model = checkpoint.load_to_measure(job.source, text.device)
    found_D = fisher(model, gradient_batches(blocks_for(config, text, checkpoint.load_tokenizer(job.source))))
    kept_D = largest(found_D.cpu(), width)
    del model
    written = write_folded(job.source, folder, Fold(family_of(config), kept_D, tied=bool(config.tie_word_embeddings)), "prune")
    return record_of(job.source, folder, job.ratio) | gap_to_zeroed(written, kept_D)
