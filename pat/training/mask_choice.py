"""What a trained mask chose, beside what it could have had without training: the channels of the Fisher order, and any by chance.

A mask whose overlap with every order is that of chance is a random one, whatever its count and its course look like.
"""

from __future__ import annotations

from torch import Tensor
from transformers import PreTrainedModel

from pat.data.calibration import Blocks
from pat.method.importance import fisher, gradient_batches
from pat.method.mask import UnifiedMask, largest

BLOCKS = 64
"""Enough to tell a mask from chance; a backward pass over each, once a run, before its first step."""


def fisher_order(model: PreTrainedModel, text: Blocks) -> Tensor:
    """Return the Fisher importance of the channels on the first blocks of a text, (D,), on the CPU."""
    few = Blocks(text.ids_NT[:BLOCKS], text.mask_NT[:BLOCKS])
    return fisher(model, gradient_batches(few)).cpu()


def overlaps(mask: UnifiedMask, fisher_D: Tensor) -> dict[str, float]:
    """Return the share of the channels that the mask keeps which the Fisher order keeps too, and what any mask of this width would have.

    Before membership is settled, of the channels that would be kept now.
    """
    kept_D = mask.kept.cpu() if mask.settled else largest(mask.proxy.detach().cpu(), mask.width)
    both = int((kept_D & largest(fisher_D, mask.width)).sum())
    return {"fisher_overlap": both / mask.width, "chance_overlap": mask.width / len(kept_D)}
