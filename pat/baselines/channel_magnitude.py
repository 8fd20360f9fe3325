"""Plain magnitude pruning of hidden channels: PAT's axis without its training. Asks whether a learned mask is worth anything.

A channel's score is the l2 norm of every weight attached to it, norm gains folded into the readers first, so that the score does not
depend on how a model splits a factor between a gain and the weights behind it. One set of channels for the whole model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from pat import checkpoint
from pat.families import Family, Role, family_of
from pat.fold import Fold
from pat.mask import largest
from pat.merge import gap_to_zeroed, record_of, write_folded
from pat.width import target_width


def prune_by_magnitude(source: Path, ratio: float, align: int | Literal["auto"], folder: Path) -> dict[str, Any]:
    """Write `source` without its weakest channels into `folder`, a stock checkpoint; return the record of its sizes."""
    config = checkpoint.load_config(source)
    family = family_of(config)
    width = target_width(config.hidden_size, config.num_attention_heads, ratio, align)
    kept_D = largest(channel_norms(source, family, config.hidden_size, tied=bool(config.tie_word_embeddings)), width)
    write_folded(source, folder, Fold(family, kept_D, tied=bool(config.tie_word_embeddings)), "prune")
    return record_of(source, folder, ratio) | gap_to_zeroed(source, kept_D, folder)


def channel_norms(source: Path, family: Family, hidden_size: int, *, tied: bool) -> Tensor:
    """Return the l2 norm of all weights attached to each channel, shape (D,), fp64."""
    gains = {
        name.removesuffix(".weight"): tensor.double() + family.gain_offset
        for name, tensor in checkpoint.tensors(source)
        if family.role(name) in (Role.NORM, Role.FINAL_NORM)
    }
    squares_D = torch.zeros(hidden_size, dtype=torch.float64)
    for name, tensor in checkpoint.tensors(source):
        module, _, parameter = name.rpartition(".")
        match family.role(name):
            case Role.EMBEDDING:
                squares_D += tensor.double().square().sum(0)
            case Role.WRITE:
                squares_D += tensor.double().square().reshape(hidden_size, -1).sum(1)
            case Role.HEAD if tied:
                continue
            case Role.READ | Role.HEAD if parameter == "weight":
                squares_D += (tensor.double() * gains[family.norm_before(module)]).square().sum(0)
    return squares_D.sqrt()
