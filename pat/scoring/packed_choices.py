"""The log-likelihoods of a question's choices from one pass over the question: all choices in one row of tokens.

A row is the question, then each choice's tokens; a choice sees the question and itself, and its positions go on from the question's end,
so the model computes what it would on the question with that choice alone. Knows nothing of texts.

Letters in names: B rows, T tokens of a row, K tokens that may be seen (the opening, then the row), N predicted tokens, D channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from pat.models.token_loss import ForetoldTokens, log_probabilities
from pat.models.token_loss import read as head_inputs
from pat.scoring.opening import Opening

PADDING = -1
QUESTION = 0


@dataclass
class Question:
    """Tokens that several endings follow, neither of them empty; `places` says whose the endings are.

    `cut` is true where the model's context left no room for the question's beginning.
    """

    context: tuple[int, ...]
    cut: bool
    endings: list[tuple[int, ...]] = field(default_factory=list)
    places: list[int] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Tokens of the row: an ending's last token is predicted, not read."""
        return len(self.context) + sum(len(ending) - 1 for ending in self.endings)

    def tokens(self) -> list[int]:
        """Return the row."""
        return [*self.context, *(token for ending in self.endings for token in ending[:-1])]

    def positions(self) -> list[int]:
        """Return each token's place in the question with its ending alone."""
        start = len(self.context)
        return [*range(start), *(start + step for ending in self.endings for step in range(len(ending) - 1))]

    def parts(self) -> list[int]:
        """Return what each token belongs to: the question, or an ending by its number from 1."""
        own = [number for number, ending in enumerate(self.endings, start=1) for _ in ending[:-1]]
        return [QUESTION] * len(self.context) + own

    def predicting(self) -> list[int]:
        """Return the columns that predict each ending's tokens: the question's last one, then the ending's own."""
        columns, start = [], len(self.context)
        for ending in self.endings:
            columns += [len(self.context) - 1, *range(start, start + len(ending) - 1)]
            start += len(ending) - 1
        return columns


def read_endings(model: PreTrainedModel, questions: Sequence[Question], opening: Opening) -> list[tuple[float, bool]]:
    """Return (log-likelihood, is greedy) of every ending, question by question; probabilities are taken in fp32.

    All questions begin with the opening.
    """
    values, hits = _predictions(model, questions, opening)
    found, start = [], 0
    for ending in (ending for question in questions for ending in question.endings):
        own = slice(start, start + len(ending))
        found.append((sum(values[own]), all(hits[own])))
        start += len(ending)
    return found


@torch.no_grad()
def _predictions(model: PreTrainedModel, questions: Sequence[Question], opening: Opening) -> tuple[list[float], list[bool]]:
    """Return the log-probability of every predicted token, and whether it is the likeliest there."""
    read = len(opening.tokens)
    tokens_BT = _padded([question.tokens()[read:] for question in questions], 0)
    positions_BT = _padded([question.positions()[read:] for question in questions], 0)
    parts_BT = _padded([question.parts()[read:] for question in questions], PADDING)
    cache = opening.cache(len(questions))
    inputs = {
        "input_ids": tokens_BT.to(model.device),
        "position_ids": positions_BT.to(model.device),
        "attention_mask": _mask(parts_BT.to(model.device), read, model.dtype),
        "past_key_values": cache,
        "use_cache": cache is not None,
    }
    hidden_BTD, head = head_inputs(model, model, inputs)
    values_N, hits_N = log_probabilities(head, hidden_BTD, _predicted(questions, read, tokens_BT.shape[1], model.device))
    return values_N.tolist(), hits_N.tolist()


def _predicted(questions: Sequence[Question], read: int, length: int, device: torch.device) -> ForetoldTokens:
    """Return the endings' tokens, and where they are foretold in rows of `length` columns, the first of which is the one at `read`."""
    index = [row * length + column - read for row, question in enumerate(questions) for column in question.predicting()]
    targets = [token for question in questions for ending in question.endings for token in ending]
    return ForetoldTokens(torch.tensor(index, device=device), torch.tensor(targets, device=device))


def _mask(parts_BT: Tensor, read: int, dtype: torch.dtype) -> Tensor:
    """Return (B, 1, T, K), added to attention scores: a token sees the opening, and what is before it of the question and its ending."""
    length = parts_BT.shape[1]
    earlier_TT = torch.ones(length, length, dtype=torch.bool, device=parts_BT.device).tril()
    seen, seer = parts_BT[:, None, :], parts_BT[:, :, None]
    visible_B1TK = pad(earlier_TT & ((seen == QUESTION) | (seen == seer)), (read, 0), value=True)[:, None]
    hidden = torch.finfo(dtype).min  # not -inf: where nothing at all is seen, that is no number
    return torch.zeros(visible_B1TK.shape, dtype=dtype, device=parts_BT.device).masked_fill(~visible_B1TK, hidden)


def _padded(rows: Sequence[Sequence[int]], filler: int) -> Tensor:
    return pad_sequence([torch.tensor(row, dtype=torch.long) for row in rows], batch_first=True, padding_value=filler)
