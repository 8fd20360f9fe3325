"""Hidden channels by their Fisher information: what PAT's mask chooses from, chosen once, before or after tuning.

A channel's score is the sum over rows of text of (∂L/∂m)², m the channel's mask, as `mask: fisher` has it: what the loss feels of the
channel to second order. One set of channels for the whole model. Set beside PAT it asks whether learning the mask is worth anything.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pat.checkpoints import checkpoint
from pat.data.calibration import blocks_for
from pat.method.importance import fisher, gradient_batches
from pat.pruners.channels import keep_most_important, width_of
from pat.pruners.job import PruneJob


def prune_unfelt_channels(job: PruneJob, folder: Path) -> dict[str, Any]:
    """Write the source without the channels that the loss feels least into `folder`, a stock checkpoint; return the record of its sizes."""
    text, config = job.text(), checkpoint.load_config(job.source)
    width_of(job)  # a ratio that comes to none is refused before anything is measured
    model = checkpoint.load_to_measure(job.source, text.device)
    found_D = fisher(model, gradient_batches(blocks_for(config, text, checkpoint.load_tokenizer(job.source))))
    del model
    return keep_most_important(job, folder, found_D)
