"""A stock model whose dropped channels are held at zero: what a pruned checkpoint must compute, by another way."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pat.families.known import family_of
from pat.models.living_norms import follow_the_gate


def kept_channels_only(model: PreTrainedModel, kept_D: Tensor) -> None:
    """Make every write of `model` to its residual stream zero on the channels that `kept_D` (boolean) leaves out; in place.

    They are then zero in the whole stream (docs/method.md, equation 3), and norms that subtract a mean subtract that of the rest.
    """

    def zero_the_rest(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        return output * kept_D.to(output)

    for write in family_of(model.config).writes(model.config.num_hidden_layers):
        model.get_submodule(write).register_forward_hook(zero_the_rest)
    open_D = kept_D.to(model.device, torch.float32)
    follow_the_gate(model, lambda: open_D)
