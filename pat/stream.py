"""The residual stream of some text on its way through a model, block by block, so that one block can be changed before the next sees it.

The streams are on the CPU, one batch's activations in one block are on the device at a time. What is measured or changed on the way is
the caller's. Axes: B batch, T tokens, D channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from pat.families import family_of


@dataclass
class Stream:
    """Some sequences on their way through the model: the stream as it is now, on the CPU, and what the layers take beside it."""

    x_BTD: Tensor
    mask_BT: Tensor
    arguments: list[dict[str, Any]]


def enter(model: PreTrainedModel, batch: Mapping[str, Tensor]) -> Stream:
    """Return the stream before the first layer, and what the model gives each layer beside it: masks and positions."""
    entered: list[Tensor] = []
    beside: list[dict[str, Any]] = []

    def note(_layer: nn.Module, inputs: tuple[Tensor, ...], arguments: dict[str, Any]) -> None:
        beside.append(arguments)
        if not entered:
            entered.append(inputs[0].cpu())

    layers: Any = model.get_submodule(family_of(model.config).layers)
    hooks = [layer.register_forward_pre_hook(note, with_kwargs=True) for layer in layers]
    try:
        model(**{name: tensor.to(model.device) for name, tensor in batch.items()}, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return Stream(entered[0], batch["attention_mask"].bool(), beside)


def attention_block(layer: Any, x_BTD: Tensor, arguments: Mapping[str, Any]) -> Tensor:
    """Return what a layer's attention writes to the stream."""
    attended_BTD: Tensor = layer.self_attn(hidden_states=layer.input_layernorm(x_BTD), **arguments)[0]
    return attended_BTD


def feed_forward_block(layer: Any, x_BTD: Tensor, _arguments: Mapping[str, Any]) -> Tensor:
    """Return what a layer's feed-forward block writes to the stream."""
    written_BTD: Tensor = layer.mlp(layer.post_attention_layernorm(x_BTD))
    return written_BTD
