"""Losses on the tokens that are learned, from the head's inputs, some tokens at a time: a batch's logits are never there as a whole.

Of an instruction only the answer's tokens are learned, so those of the prompt need no logits at all. A chunk's logits are made, and
their gradient on the hidden states, which is all that a frozen head passes on, is taken at once; nothing is computed twice.
Axes: B batch, T tokens, N learned tokens, C tokens of a chunk, D channels, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from pat.models.compiled import is_compiled
from pat.models.hooks import removed_behind
from pat.models.sharding import whole

IGNORED_LABEL = -100
LOGITS_AT_ONCE = 2**26
"""On a GPU: 256 MiB in fp32, of which cross-entropy and its gradient need three or four; 1365 tokens of 49,152 words."""
COMPILED_CHUNKS = 4
"""A compiled loss keeps logits in the head's dtype alone and makes nothing in fp32: four chunks at once take less memory than one does
otherwise (0.7 GiB for 1.0 on an H200), and 4 ms where chunks that are not compiled take 11."""
LOGITS_AT_ONCE_ON_CPU = 2**23
"""Where larger tensors, whose pages are given back and asked for again with every chunk, take twice as long."""
Objective = Callable[[Tensor, slice], tuple[Tensor, Tensor]]
"""Takes the hidden states (C, D) of some of the learned tokens, and which ones; returns what is to be differentiated, a scalar, and
figures of any shape that does not depend on the tokens. Both are summed over the chunks."""


@dataclass(frozen=True)
class Head:
    """A model's frozen head as a function of the final norm's output. `weight_VD` is whole, also where the model is in shards."""

    linear: nn.Linear
    weight_VD: Tensor
    scaling: float
    softcap: float | None
    compiled: bool = False
    """Whether the model's layers are compiled, and so its losses too."""

    def logits(self, hidden_CD: Tensor) -> Tensor:
        """Return logits (C, V), in fp32 at least."""
        return _logits(hidden_CD, self.weight_VD, self.linear.bias, self.scaling, self.softcap)

    def summed_cross_entropy(self, hidden_CD: Tensor, targets_C: Tensor) -> Tensor:
        """Return the sum of the tokens' cross-entropy in nats."""
        summed = _compiled_summed_cross_entropy() if self.compiled and len(hidden_CD) else _summed_cross_entropy
        return summed(hidden_CD, targets_C, self.weight_VD, self.linear.bias, self.scaling, self.softcap)

    def chunk(self) -> int:
        """Return how many tokens have their logits at a time."""
        return max(1, most_logits(self.weight_VD.device) // self.linear.out_features)

    def loss_chunk(self) -> int:
        """Return of how many tokens `summed_cross_entropy` is taken at a time."""
        return self.chunk() * (COMPILED_CHUNKS if self.compiled else 1)


def _logits(hidden_CD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, scaling: float, softcap: float | None) -> Tensor:
    logits_CV = functional.linear(hidden_CD, weight_VD, bias_V)
    if scaling != 1.0:  # a division by one would be a copy of all logits
        logits_CV = logits_CV / scaling
    if softcap is not None:
        logits_CV = torch.tanh(logits_CV / softcap) * softcap
    return logits_CV.to(torch.promote_types(logits_CV.dtype, torch.float32))


def _summed_cross_entropy(
    hidden_CD: Tensor, targets_C: Tensor, weight_VD: Tensor, bias_V: Tensor | None, scaling: float, softcap: float | None
) -> Tensor:
    return functional.cross_entropy(_logits(hidden_CD, weight_VD, bias_V, scaling, softcap), targets_C, reduction="sum")


@cache
def _compiled_summed_cross_entropy() -> Callable[..., Tensor]:
    """One graph for chunks of all lengths; importing what compiles takes seconds, which those who do not compile are spared."""
    return torch.compile(_summed_cross_entropy, dynamic=True)


def most_logits(device: torch.device) -> int:
    """Return how many logits there are at a time."""
    return LOGITS_AT_ONCE_ON_CPU if device.type == "cpu" else LOGITS_AT_ONCE


def has_frozen_head(stock: PreTrainedModel) -> bool:
    """Return whether a model's head is one linear layer that is not trained, so that its losses can be taken in chunks."""
    head: Any = stock.get_output_embeddings()
    return isinstance(head, nn.Linear) and not any(parameter.requires_grad for parameter in head.parameters())


def read(model: nn.Module, stock: PreTrainedModel, inputs: Mapping[str, Any]) -> tuple[Tensor, Head]:
    """Return what the head is given, (B, T, D), in a forward pass on `inputs` that makes no logits, and the head.

    `model` is the one to call, in whatever `stock`, which has the head, is wrapped.
    """
    linear: Any = stock.get_output_embeddings()
    taken: list[Tensor] = []

    def take(_module: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor]:
        taken.append(arguments[0])
        return (arguments[0][:, :0],)

    with removed_behind([linear.register_forward_pre_hook(take)]):
        model(**{"use_cache": False, **inputs})
    [hidden_BTD] = taken
    config = stock.config  # Granite's and Gemma 2's ways from the head to the logits
    # Shards are put together once for all chunks, of which other processes may have more or fewer.
    scaling, softcap = getattr(config, "logits_scaling", 1.0), getattr(config, "final_logit_softcapping", None)
    head = Head(linear, whole(linear.weight), scaling, softcap, is_compiled(stock))
    return hidden_BTD, head


@dataclass(frozen=True)
class ForetoldTokens:
    """The tokens of a batch that count: where they are foretold, in the batch laid out flat, and what they are."""

    index_N: Tensor
    targets_N: Tensor

    def among(self, batch_BTD: Tensor) -> Tensor:
        """Return what foretells them, (N, D): hidden states or logits."""
        return batch_BTD.flatten(0, 1).index_select(0, self.index_N)


def learned_tokens(labels_BT: Tensor) -> ForetoldTokens:
    """Return the tokens with a label. Position t foretells token t + 1. A GPU is waited for here: call it before the model."""
    return foretold_tokens(functional.pad(labels_BT, (0, 1), value=IGNORED_LABEL)[:, 1:])


def foretold_tokens(targets_BT: Tensor) -> ForetoldTokens:
    """As `learned_tokens`, where each target lies at the position that foretells it."""
    targets = targets_BT.flatten()
    index_N = (targets != IGNORED_LABEL).nonzero().flatten()
    return ForetoldTokens(index_N, targets.index_select(0, index_N))


@torch.no_grad()
def cross_entropies(head: Head, hidden_BTD: Tensor, tokens: ForetoldTokens) -> Tensor:
    """Return the cross-entropy of every token in nats, (N,), in fp32 at least."""
    hidden_ND = tokens.among(hidden_BTD)
    losses_N = _one_for_each(hidden_ND)

    def take(part: slice, logits_CV: Tensor, targets_C: Tensor) -> None:
        losses_N[part] = functional.cross_entropy(logits_CV, targets_C, reduction="none")

    _chunk_by_chunk(head, hidden_ND, tokens.targets_N, take)
    return losses_N


@torch.no_grad()
def log_probabilities(head: Head, hidden_BTD: Tensor, tokens: ForetoldTokens) -> tuple[Tensor, Tensor]:
    """Return the log-probability of every token, (N,), in fp32 at least, and whether it is the likeliest in its place, (N,)."""
    hidden_ND = tokens.among(hidden_BTD)
    values_N = _one_for_each(hidden_ND)
    likeliest_N = torch.empty_like(values_N, dtype=torch.bool)

    def take(part: slice, logits_CV: Tensor, targets_C: Tensor) -> None:
        values_CV = logits_CV.log_softmax(dim=-1)
        values_N[part] = values_CV.gather(1, targets_C[:, None])[:, 0]
        likeliest_N[part] = values_CV.argmax(dim=-1) == targets_C

    _chunk_by_chunk(head, hidden_ND, tokens.targets_N, take)
    return values_N, likeliest_N


def _chunk_by_chunk(head: Head, hidden_ND: Tensor, targets_N: Tensor, take: Callable[[slice, Tensor, Tensor], None]) -> None:
    """Give `take` which tokens a chunk has, their logits and what they are.

    A function gets them, not a loop: its variable would hold one chunk's logits while the next chunk's are made.
    """
    size = head.chunk()
    for start in range(0, len(hidden_ND), size):
        part = slice(start, start + size)
        take(part, head.logits(hidden_ND[part]), targets_N[part])


def _one_for_each(hidden_ND: Tensor) -> Tensor:
    """Return room for a number of each token, laid out before there are logits.

    A small tensor kept from each chunk would lie where the next chunk's logits could, and a processor's memory grow.
    """
    return hidden_ND.new_empty(len(hidden_ND), dtype=torch.promote_types(hidden_ND.dtype, torch.float32))


def in_chunks(hidden_ND: Tensor, size: int, objective: Objective) -> tuple[Tensor, Tensor]:
    """Return the objective, which can be differentiated for `hidden_ND`, and the figures, which cannot, over chunks of `size` tokens."""
    wanted = torch.is_grad_enabled() and hidden_ND.requires_grad
    gradient_ND = torch.empty_like(hidden_ND) if wanted else None
    totals: tuple[Tensor, Tensor] | None = None
    for start in range(0, max(len(hidden_ND), 1), size):  # no tokens are one chunk of none: a sum of zeros
        part = slice(start, start + size)
        hidden_CD = hidden_ND.detach()[part].requires_grad_(wanted)
        value, figures = objective(hidden_CD, part)
        if gradient_ND is not None:
            [gradient_ND[part]] = torch.autograd.grad(value, hidden_CD)
        summed = value.detach(), figures.detach()
        totals = summed if totals is None else (totals[0] + summed[0], totals[1] + summed[1])
    assert totals is not None
    if gradient_ND is None:
        return totals
    value = _Differentiated.apply(hidden_ND, totals[0], gradient_ND)  # type: ignore[no-untyped-call]
    return value, totals[1]


class _Differentiated(torch.autograd.Function):
    """A scalar whose gradient is known already."""

    @staticmethod
    def forward(context: Any, _inputs: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        context.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, outer: Tensor) -> tuple[Tensor, None, None]:
        [gradient] = context.saved_tensors
        return gradient * outer.to(gradient.dtype), None, None
