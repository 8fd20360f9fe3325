"""How far a model is from another on text: mean Kullback-Leibler divergence of the next token, and the perplexities of both.

Random tokens cannot tell a small error from a large one, because a single outlier decides; a mean over text can. One model is in memory
at a time: of the first one its head is kept, and its last hidden states, which are in host memory.
Axes: B batch, T tokens, N tokens that count, D channels, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pat.data.calibration import Blocks
from pat.models.token_loss import Head, read

LOGITS_AT_ONCE = 2**25
"""128 MB in fp32: a batch of text has far more logits than that."""
MOST_NATS = 600.0
"""A broken model can lose more a token; a perplexity of it would be beyond what a float holds, and no record."""


@dataclass(frozen=True)
class Said:
    """What a model says of some text: what its head is given for each token with a next one, (N, D), the head, the next tokens (N,).

    States and tokens are on the CPU, the head where the model was.
    """

    states_ND: Tensor
    head: Head
    next_N: Tensor

    def log_probabilities(self) -> Iterator[Tensor]:
        """Yield the next token's log-probabilities in fp32, some tokens at a time."""
        for states_ND in self.states_ND.split(max(1, LOGITS_AT_ONCE // len(self.head.weight_VD))):
            yield self.head.logits(states_ND.to(self.head.weight_VD.device)).float().log_softmax(-1)


@torch.no_grad()
def said(model: PreTrainedModel, text: Blocks) -> Said:
    """Return what `model` says of the text's real tokens."""
    states, following = [], []
    for batch in text.batches():
        arguments = {name: tensor.to(model.device) for name, tensor in batch.items()}
        hidden_BTD, head = read(model, model, arguments)
        real_BT = arguments["attention_mask"][:, 1:].bool()
        states.append(hidden_BTD[:, :-1][real_BT].cpu())
        following.append(arguments["input_ids"][:, 1:][real_BT].cpu())
    return Said(torch.cat(states), head, torch.cat(following))


@torch.no_grad()
def perplexity(of: Said) -> float:
    """Return the perplexity of the tokens with one before them: what `text_gap` says of a model, without another."""
    loss, start = 0.0, 0
    for log_NV in of.log_probabilities():
        loss -= _of_next(log_NV, of, start).sum().item()
        start += len(log_NV)
    return _exp(loss / start)


def _exp(nats: float) -> float:
    """Return e to the power of so many nats, of more than MOST_NATS as if they were that many."""
    return math.exp(min(nats, MOST_NATS))


def _of_next(log_NV: Tensor, of: Said, start: int) -> Tensor:
    """Return the log-probabilities, (N, 1) in fp64, of the tokens that follow those from `start` on."""
    next_N1 = of.next_N[start : start + len(log_NV), None].to(log_NV.device)
    return log_NV.gather(1, next_N1).double()


@torch.no_grad()
def text_gap(reference: Said, other: Said) -> dict[str, float]:
    """Return the mean divergence KL(reference ‖ other) per token, the perplexities before and after, their ratio and its standard error.

    The error is that of the tokens being a sample: on a short text it is large.
    """
    divergence, losses, squares, start = 0.0, [0.0, 0.0], 0.0, 0
    for expected_NV, found_NV in zip(reference.log_probabilities(), other.log_probabilities(), strict=True):
        divergence += (expected_NV.exp() * (expected_NV - found_NV)).sum(dtype=torch.float64).item()
        of_next = [_of_next(log_NV, reference, start) for log_NV in (expected_NV, found_NV)]
        losses = [loss - log_N1.sum().item() for loss, log_N1 in zip(losses, of_next, strict=True)]
        squares += (of_next[0] - of_next[1]).square().sum().item()
        start += len(expected_NV)
    before, after = (loss / start for loss in losses)
    error = math.sqrt(max(squares / start - (after - before) ** 2, 0.0) / start)
    return {
        "kl": max(divergence / start, 0.0),
        "perplexity_before": _exp(before),
        "perplexity_after": _exp(after),
        "perplexity_ratio": _exp(after - before),
        "perplexity_ratio_error": _exp(after - before) * error,
        "tokens": start,
    }
