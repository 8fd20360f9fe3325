"""Which decoder layers a model needs least: taken out one after the other, each time the one whose absence costs least on text.

A layer's own influence on the stream says little about what the layers behind it would do without it; this tries it out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pat.families.known import family_of
from pat.io.progress import Progress
from pat.method.importance import text_loss

Batch = dict[str, Tensor]


class HandOn(nn.Module):
    """Stands in for a decoder layer and passes on its input; asked for anything else, it answers as the layer would."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.__dict__["_layer"] = layer  # not a submodule: its weights are not this model's while it is away

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_layer"], name)

    def forward(self, hidden_states: Tensor, *_arguments: Any, **_named: Any) -> Tensor:
        return hidden_states


@contextmanager
def without_layers(model: PreTrainedModel, dropped: Iterable[int]) -> Iterator[None]:
    """While open, the layers of these numbers are not computed; every other one stays in its place."""
    layers: Any = model.get_submodule(family_of(model.config).layers)
    away = {layer: layers[layer] for layer in dropped}
    for layer, module in away.items():
        layers[layer] = HandOn(module)
    try:
        yield
    finally:
        for layer, module in away.items():
            layers[layer] = module


@torch.no_grad()
def mean_loss(model: PreTrainedModel, batches: Sequence[Batch]) -> float:
    """Return the next token's cross-entropy on the batches' real tokens, in nats per token."""
    tokens = sum(int(batch["attention_mask"][:, 1:].sum()) for batch in batches)
    return sum(float(text_loss(model, batch)) for batch in batches) / tokens


def dropping_order(model: PreTrainedModel, batches: Sequence[Batch], count: int) -> list[int]:
    """Return `count` layers, numbered from 0, in the order in which they can best go; of equal ones the earlier goes first."""
    layers, gone = range(model.config.num_hidden_layers), list[int]()
    progress = Progress("layers", sum(len(layers) - step for step in range(count)))
    tried = 0
    for _ in range(count):
        losses = {}
        for layer in (layer for layer in layers if layer not in gone):
            with without_layers(model, [*gone, layer]):
                losses[layer] = mean_loss(model, batches)
            tried += 1
            progress.update(tried, gone=len(gone))
        gone.append(min(losses, key=losses.__getitem__))
    return gone
