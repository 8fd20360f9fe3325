"""Tiny tied models such as pretrained ones are: gains of one size but for a few, one below zero, and a channel that one word makes huge."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel

from pat.families.known import family_of
from tests.kit.tiny_models import CONFIGS, MORE, tiny_model

TIED = tuple(name for name, config in CONFIGS.items() if config().tie_word_embeddings)
MORE_TIED = tuple(name for name, config in MORE.items() if config().tie_word_embeddings and family_of(config()).rotation_obstacle is None)
"""Of the families that differ in more than names those that can be rotated."""
SEEDS = {"qwen3-moe-tied-biases": 1}
"""With the first seed its biases make one token certain, and a mistake would hardly show in what it says."""
OUTLIER, NEGATIVE, LARGE = 11, 30, 40
SINK = 3
"""The token whose energy lies in the channel OUTLIER."""


def tied_model(name: str) -> PreTrainedModel:
    """Return a tiny tied model whose final norm has these gains, and whose stream has the outlier."""
    model: Any = tiny_model(name, SEEDS.get(name, 0))
    family = family_of(model.config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        gain_D = model.get_parameter(f"{family.final_norm}.weight")
        gain_D.copy_(1.8 * (1 + 0.05 * torch.randn(len(gain_D), generator=generator)) - family.gain_offset)
        gain_D[NEGATIVE] = -2.5 - family.gain_offset
        gain_D[LARGE] = 4.5 - family.gain_offset
        embedding_VD = model.get_input_embeddings().weight
        embedding_VD.mul_(0.3)
        embedding_VD[SINK, OUTLIER] = 3.0
    return model  # type: ignore[no-any-return]
