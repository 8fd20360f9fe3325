"""The residual stream of some text on its way through a model, block by block, so that one block can be changed before the next sees it.

The streams and what layers give beside them, masks above all, are on the CPU; one batch's activations in one block are on the device at a
time. What is measured or changed on the way is the caller's. Axes: B batch, T tokens, D channels, N tokens that count.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from pat.families.known import Block, family_of, residual_factor
from pat.models.hooks import removed_behind, stream_before


@dataclass(frozen=True)
class Beside:
    """What a layer gives the module of one of its blocks beside the stream: masks and positions."""

    positional: tuple[Any, ...]
    named: dict[str, Any]

    def moved(self, move: Callable[[Tensor], Tensor]) -> Beside:
        """Return it with every tensor in it moved."""
        return Beside(_moved(self.positional, move), _moved(self.named, move))


def _moved(value: Any, move: Callable[[Tensor], Tensor]) -> Any:
    match value:
        case Tensor():
            return move(value)
        case tuple() | list():
            return type(value)(_moved(one, move) for one in value)
        case dict():
            return {name: _moved(one, move) for name, one in value.items()}
    return value


@dataclass
class Stream:
    """Some sequences on their way through the model: the stream as it is now, on the CPU, and what each block takes beside it.

    `beside` has an entry for each layer and block. `pending_BTD` is what blocks of the present layer have written that the others of it
    do not see: in a parallel family.
    """

    x_BTD: Tensor
    mask_BT: Tensor
    beside: list[list[Beside]]
    pending_BTD: Tensor | None = field(default=None)

    def real(self) -> Tensor:
        """Return the stream of the tokens that are no padding, (N, D); not a copy where none is."""
        return self.x_BTD.flatten(0, 1) if self.mask_BT.all() else self.x_BTD[self.mask_BT]

    def take_up(self, written_BTD: Tensor, *, parallel: bool) -> None:
        """Add what a block has written: at once, or in a parallel family with the layer's end."""
        written_BTD = written_BTD.to(self.x_BTD.device)
        if parallel:
            self.pending_BTD = written_BTD if self.pending_BTD is None else self.pending_BTD + written_BTD
        else:
            self.x_BTD = self.x_BTD + written_BTD

    def end_layer(self) -> None:
        """Add what is pending."""
        if self.pending_BTD is not None:
            self.x_BTD, self.pending_BTD = self.x_BTD + self.pending_BTD, None


@torch.no_grad()
def enter(model: PreTrainedModel, batches: Iterable[Mapping[str, Tensor]]) -> list[Stream]:
    """Return the streams of batches before the first layer, and what the layers give each block beside them.

    The latter is made of a batch's mask alone, so that one forward pass tells it of all batches with the same one; the others are embedded.
    """
    noted: list[tuple[Tensor, list[list[Beside]]]] = []
    streams = []
    for batch in batches:
        mask_BT = batch["attention_mask"]
        arguments = {name: tensor.to(model.device) for name, tensor in batch.items()}
        beside = next((beside for mask, beside in noted if torch.equal(mask, mask_BT)), None)
        if beside is None:
            beside = _beside(model, arguments)
            noted.append((mask_BT, beside))
        first = model.get_submodule(f"{family_of(model.config).layers}.0")
        x_BTD = stream_before(first, partial(model.base_model, **arguments, use_cache=False))
        streams.append(Stream(x_BTD.cpu(), mask_BT.bool(), beside))
    return streams


def _beside(model: PreTrainedModel, arguments: Mapping[str, Tensor]) -> list[list[Beside]]:
    """Return what the layers give each block beside the stream, by layer and block."""
    family = family_of(model.config)
    layers: Any = model.get_submodule(family.layers)
    beside: list[list[Beside]] = [[] for _ in layers]
    blocks = [[layer.get_submodule(block.module) for block in family.blocks] for layer in layers]
    with removed_behind(_noting(blocks, beside)):
        model.base_model(**arguments, use_cache=False)
    return beside


def _noting(modules: Sequence[Sequence[nn.Module]], beside: list[list[Beside]]) -> list[RemovableHandle]:
    """Return hooks that note what each layer gives its blocks' modules beside their first argument, on the CPU."""
    copied: dict[int, tuple[Tensor, Tensor]] = {}  # all layers are given the same masks: each is copied once

    def copy(tensor: Tensor) -> Tensor:
        if id(tensor) not in copied:
            copied[id(tensor)] = (tensor, tensor.cpu())  # with the tensor itself, so that its id stays its own
        return copied[id(tensor)][1]

    def noting(found: list[Beside], first: str) -> Any:
        def note(_module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            found.append(Beside(given[1:], {name: value for name, value in named.items() if name != first}).moved(copy))

        return note

    return [
        module.register_forward_pre_hook(noting(found, stream_argument(module)), with_kwargs=True)
        for of_layer, found in zip(modules, beside, strict=True)
        for module in of_layer
    ]


def stream_argument(module: nn.Module) -> str:
    """Return the name of a module's first argument: what its readers get."""
    return next(iter(inspect.signature(module.forward).parameters))


def written_by(block: Block, model: Any, layer: Any, x_BTD: Tensor, beside: Beside) -> Tensor:
    """Return what a layer's block writes to the stream."""
    beside = beside.moved(lambda tensor: tensor.to(x_BTD.device))
    read_BTD = x_BTD if block.norm is None else layer.get_submodule(block.norm)(x_BTD)
    output = layer.get_submodule(block.module)(read_BTD, *beside.positional, **beside.named)
    written_BTD: Tensor = output[0] if isinstance(output, tuple) else output
    if block.norm_behind is not None:
        written_BTD = layer.get_submodule(block.norm_behind)(written_BTD)
    factor = residual_factor(model.config)
    return written_BTD if factor == 1.0 else written_BTD * factor
