"""What all prompts of a job begin with, read by the model once: the keys and values of it go before every batch."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from transformers import Cache, PreTrainedModel


class Opening:
    """The tokens that all prompts begin with, and what the model's layers keep of them; of none it keeps nothing.

    A prompt's last token is never part of it, for its logits are wanted.
    """

    def __init__(self, model: PreTrainedModel, prompts: Sequence[tuple[int, ...]]) -> None:
        self.tokens = list(prompts[0][: common_length(prompts)]) if prompts else []
        self._cache: Cache | None = None
        if self.tokens:
            reader: Any = model
            ids_BT = torch.tensor([self.tokens], device=model.device)
            with torch.no_grad():
                self._cache = reader(input_ids=ids_BT, use_cache=True, logits_to_keep=1).past_key_values

    def cache(self, count: int) -> Cache | None:
        """Return a cache of its own for a batch of `count` prompts; None where they have no opening in common."""
        if self._cache is None:
            return None
        cache = copy.deepcopy(self._cache)
        cache.batch_repeat_interleave(count)
        return cache


def common_length(prompts: Sequence[tuple[int, ...]]) -> int:
    """Return how many tokens all prompts begin with, short of any prompt's last one."""
    shortest, longest = min(prompts), max(prompts)  # in the order of a dictionary: what these two share, all share
    most = min(len(prompt) for prompt in prompts) - 1
    return next((place for place in range(most) if shortest[place] != longest[place]), most)
