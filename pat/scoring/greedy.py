"""Greedy continuation of a batch of prompts, each as it would be alone."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from pat.scoring.opening import Opening


@dataclass(frozen=True)
class Prompt:
    """Tokens to go on from; `place` says whose they are, `cut` that the model's context left no room for the beginning."""

    context: tuple[int, ...]
    cut: bool
    place: int

    @property
    def length(self) -> int:
        """Tokens of the row."""
        return len(self.context)


def continuations(
    model: PreTrainedModel, prompts: Sequence[Prompt], opening: Opening, new_tokens: int, stops: Collection[int], filler: int
) -> list[list[int]]:
    """Return the tokens that follow each prompt: `new_tokens`, or as many as there are up to the first of `stops`, that one included.

    All prompts begin with the opening. `filler` is any token; what is after a stop, and before a shorter prompt, is filled with it.
    """
    read = len(opening.tokens)
    rests = [torch.tensor(prompt.context[read:]) for prompt in prompts]
    rest_BT = pad_sequence(rests, batch_first=True, padding_value=filler, padding_side="left")
    real_BT = pad_sequence([torch.ones_like(rest) for rest in rests], batch_first=True, padding_side="left")
    opening_BT = torch.tensor(opening.tokens, dtype=torch.long).expand(len(prompts), -1)
    tokens_BT = torch.cat([opening_BT, rest_BT], dim=1)
    real_BT = torch.cat([torch.ones_like(opening_BT), real_BT], dim=1).to(model.device)
    generator: Any = model
    with torch.no_grad():
        made_BT = generator.generate(
            input_ids=tokens_BT.to(model.device),
            attention_mask=real_BT,
            position_ids=real_BT.cumsum(dim=1) - 1,  # padding behind the opening takes no place; not every class would be told so
            past_key_values=opening.cache(len(prompts)),
            max_length=tokens_BT.shape[1] + new_tokens,
            do_sample=False,
            eos_token_id=sorted(stops),
            pad_token_id=filler,
        )
    return [_up_to_stop(row, stops) for row in made_BT[:, tokens_BT.shape[1] :].tolist()]


def _up_to_stop(tokens: list[int], stops: Collection[int]) -> list[int]:
    end = next((place for place, token in enumerate(tokens, start=1) if token in stops), len(tokens))
    return tokens[:end]
