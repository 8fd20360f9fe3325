"""Which decoder layers a model needs least: taken out one after the other, each time the one whose absence costs least on text.

A layer's own influence on the stream says little about what the layers behind it would do without it; this tries it out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pat.families.known import family_of
from pat.io.progress import Progress
from pat.method.importance import text_loss
from pat.models.hooks import given_stream, removed_behind

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


class GoOnFrom(HandOn):
    """Stands in for a decoder layer and passes on a stream, (B, T, D), that is known already, whatever it is given."""

    def __init__(self, layer: nn.Module, stream_BTD: Tensor) -> None:
        super().__init__(layer)
        self.stream_BTD = stream_BTD

    def forward(self, hidden_states: Tensor, *_arguments: Any, **_named: Any) -> Tensor:
        return self.stream_BTD


@contextmanager
def standing_in(model: PreTrainedModel, others: Mapping[int, nn.Module]) -> Iterator[None]:
    """While open, other modules are in the places of the layers of these numbers."""
    layers = layers_of(model)
    away = {layer: layers[layer] for layer in others}
    for layer, module in others.items():
        layers[layer] = module
    try:
        yield
    finally:
        for layer, module in away.items():
            layers[layer] = module


def without_layers(model: PreTrainedModel, dropped: Iterable[int]) -> AbstractContextManager[None]:
    """While open, the layers of these numbers are not computed; every other one stays in its place."""
    layers = layers_of(model)
    return standing_in(model, {layer: HandOn(layers[layer]) for layer in dropped})


def layers_of(model: PreTrainedModel) -> nn.ModuleList:
    """Return a model's decoder layers."""
    layers = model.get_submodule(family_of(model.config).layers)
    assert isinstance(layers, nn.ModuleList)
    return layers


@torch.no_grad()
def mean_loss(model: PreTrainedModel, batches: Sequence[Batch]) -> float:
    """Return the next token's cross-entropy on the batches' real tokens, in nats per token."""
    tokens = sum(int(batch["attention_mask"][:, 1:].sum()) for batch in batches)
    return sum(float(text_loss(model, batch)) for batch in batches) / tokens


def dropping_order(model: PreTrainedModel, batches: Sequence[Batch], count: int) -> list[int]:
    """Return `count` layers, numbered from 0, in the order in which they can best go; of equal ones the earlier goes first."""
    layers, gone = range(model.config.num_hidden_layers), list[int]()
    progress = Progress("layers", len(batches) * sum(len(layers) - step for step in range(count)))
    tried = 0
    for _ in range(count):
        losses = {layer: 0.0 for layer in layers if layer not in gone}
        for batch in batches:
            for layer, loss in losses_without_each(model, batch, gone):
                losses[layer] += loss
                tried += 1
                progress.update(tried, gone=len(gone))
        gone.append(min(losses, key=losses.__getitem__))
    return gone


@torch.no_grad()
def losses_without_each(model: PreTrainedModel, batch: Batch, gone: Sequence[int]) -> Iterator[tuple[int, float]]:
    """Yield every layer that is not gone, with the batch's summed loss without it, in nats.

    The layers before it pass on what they always do, so they are computed once for all: half of the work. What they pass on is kept
    meanwhile, the stream of the batch once a layer.
    """
    layers = layers_of(model)
    for layer, stream_BTD in _streams_before_layers(model, batch, gone).items():
        with without_layers(model, [*gone, *range(layer)]), standing_in(model, {layer: GoOnFrom(layers[layer], stream_BTD)}):
            loss = float(text_loss(model, batch))
        yield layer, loss


def _streams_before_layers(model: PreTrainedModel, batch: Batch, gone: Sequence[int]) -> dict[int, Tensor]:
    """Return what each layer that is not gone is given, (B, T, D), in a forward pass without those that are."""
    streams: dict[int, Tensor] = {}

    def keep(layer: int) -> Any:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], keywords: dict[str, Any]) -> None:
            streams[layer] = given_stream(inputs, keywords)

        return hook

    there = {place: layer for place, layer in enumerate(layers_of(model)) if place not in gone}
    hooks = (layer.register_forward_pre_hook(keep(place), with_kwargs=True) for place, layer in there.items())
    with without_layers(model, gone), removed_behind(hooks):
        text_loss(model, batch)
    return streams
