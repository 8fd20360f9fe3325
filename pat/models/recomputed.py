"""Feed-forward blocks that are computed again in the backward pass, so that of each a forward pass keeps the input alone.

More than half of what a decoder layer keeps for backward is that of its neurons (docs/performance.md). Recomputing whole layers is
transformers' own. No module is put around another: every tensor keeps its name.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from pat.errors import UserError
from pat.families.known import family_of

if TYPE_CHECKING:
    from pat.training.request import TuningRequest


def check_recomputation(request: TuningRequest) -> None:
    """Raise UserError where a tuning is to recompute feed-forward blocks, and its model's cannot be by themselves."""
    reason = family_of(request.model_config).recomputation_obstacle
    if request.tuning.recomputes_feed_forward and reason is not None:
        raise UserError(f"tuning.gradient_checkpointing: feed-forward with --base {request.base}: is not possible: {reason}")


def recompute_feed_forward(stock: PreTrainedModel) -> None:
    """Have each layer's feed-forward block computed again in backward, in place; what its layers are exchanged for later, with them.

    Call it before the layers are compiled. Whatever hooks a block has stay outside.
    """
    for block in _blocks(stock):
        # A method, which a copy of the model has of its own block, and of which compiled code looks at the function alone: one graph
        # then serves all layers (compiled.py), where a partial would have one built for each.
        block.forward = MethodType(_forward, block)


@contextmanager
def recomputed_feed_forward(stock: PreTrainedModel) -> Iterator[None]:
    """As `recompute_feed_forward`, while open."""
    recompute_feed_forward(stock)
    try:
        yield
    finally:
        for block in _blocks(stock):
            del block.forward


def _blocks(stock: PreTrainedModel) -> list[nn.Module]:
    family = family_of(stock.config)
    assert family.recomputation_obstacle is None
    names = [block.module for block in family.blocks if block.kind == "neurons"]
    return [layer.get_submodule(name) for layer in stock.get_submodule(family.layers).children() for name in names]


def _forward(block: nn.Module, *arguments: Any, **keywords: Any) -> Any:
    """Compute a block as its class does, keeping nothing where there will be a backward pass."""
    forward = partial(type(block).forward, block)
    if not torch.is_grad_enabled():
        return forward(*arguments, **keywords)
    return checkpoint(forward, *arguments, use_reentrant=False, **keywords)
