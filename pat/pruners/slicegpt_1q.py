"""SliceGPT with one rotation for the whole stream: its leading directions are kept, and the output stays a stock model.

SliceGPT proper has a basis of its own before every block and a dense shortcut where two meet, which no stock class holds. With a
single basis all shortcuts are the identity, so that a ratio removes what it says. The basis is that of principal components, or PAT-G's.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from pat.bases.change_of_basis import write_in_basis
from pat.bases.writers import WHOLE_FOLDER
from pat.checkpoints import checkpoint
from pat.checkpoints.fidelity import gap_to_zeroed
from pat.checkpoints.merge import record_of, write_folded
from pat.errors import UserError
from pat.families.known import family_of
from pat.method.fold import Fold
from pat.models.width import width_at
from pat.pruners.job import PruneJob

logger = logging.getLogger(__name__)


def prune_rotated(job: PruneJob, folder: Path) -> dict[str, Any]:
    """Write the source, rotated and cut to its leading directions, into `folder`; return the record of its sizes.

    `rotation_gap` in it is the largest logit difference that the rotation alone makes, `captured` the share that is kept of what the
    basis measures (principal components: of the variance), `kept` the channels of the rotated model that stay; `tie` and `text` are as
    in `pat rotate`. The rotated model stays in the folder, for `prune` to refit writers to and to remove. Raises UserError where the
    channels that are not rotated do not fit the width.
    """
    config = checkpoint.load_config(job.source)
    width = width_at(config, job.ratio, job.align)
    rotated = folder / WHOLE_FOLDER
    rotated.mkdir()
    basis, exactness = write_in_basis(job.source, rotated, job.settings.basis or "pca", job.text(), job.settings.tie)
    kept_D = torch.arange(config.hidden_size) < width
    if width < len(exactness.get("apart", ())):
        raise UserError(f"ratio {job.ratio:g}: leaves {width} channels, fewer than the {len(exactness['apart'])} that are not rotated")
    written = write_folded(rotated, folder, Fold(family_of(config), kept_D, tied=exactness["tie"] == "kept"), "prune")
    gap = gap_to_zeroed(written, kept_D)
    logger.info("the leading %d of %d directions hold %.4f of what the basis measures", width, config.hidden_size, basis.captured(width))
    record = record_of(job.source, folder, job.ratio) | exactness | gap
    return record | {"rotation_gap": exactness["logit_gap"], "captured": basis.captured(width), "kept": list(range(width))}
