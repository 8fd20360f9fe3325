"""What a trained mask chose, beside what it could have had without training: the channels of the Fisher order, and any by chance.

A mask whose overlap with every order is that of chance is a random one, whatever its count and its course look like.
"""

from __future__ import annotations

from torch import Tensor
from transformers import PreTrainedModel

from pat.data.calibration import Blocks
from pat.method.importance import fisher, gradient_batches
from pat.method.mask import UnifiedMask, largest

TOKENS = 32_768
LENGTH = 256
"""Each row gives one sample of the gradient: many short ones tell more than few long ones, and a mask from chance. They are worked through
once a run, before its first step."""


def fisher_order(model: PreTrainedModel, text: Blocks) -> Tensor:
    """Return the Fisher importance of the channels on the first tokens of a text, (D,), on the CPU."""
    return fisher(model, gradient_batches(_beginning(text))).cpu()


def _beginning(text: Blocks) -> Blocks:
    """Return the text's first tokens in short rows, where its blocks can be cut into such."""
    count, length = text.ids_NT.shape
    few = slice(0, max(1, min(count, TOKENS // length)))
    short = LENGTH if length % LENGTH == 0 else length
    rows = Blocks(text.ids_NT[few].reshape(-1, short), text.mask_NT[few].reshape(-1, short))
    real = rows.mask_NT.any(-1)  # the last block may end early
    return Blocks(rows.ids_NT[real], rows.mask_NT[real])


def overlaps(mask: UnifiedMask, fisher_D: Tensor) -> dict[str, float]:
    """Return the share of the channels that the mask keeps which the Fisher order keeps too, and what any mask of this width would have.

    Before membership is settled, of the channels that would be kept now.
    """
    kept_D = mask.kept.cpu() if mask.settled else largest(mask.proxy.detach().cpu(), mask.width)
    both = int((kept_D & largest(fisher_D, mask.width)).sum())
    return {"fisher_overlap": both / mask.width, "chance_overlap": mask.width / len(kept_D)}
