"""A text's way through a decoder, layer by layer: the stream of all its tokens is held, and moved on through one layer at a time.

What a layer is given beside the stream (positions, masks) is what the model itself gives it, taken from one forward pass.
Axes: N rows of text, B rows of a batch, T tokens, D channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pat.families.known import family_of
from pat.models.hooks import given_stream

Caught = Callable[[slice, dict[str, Tensor]], None]
"""Takes which rows a batch has, and what some modules of the layer were given, by their names."""


class _BehindTheEmbedding(Exception):  # noqa: N818 - no error: it ends a forward pass of which the rest is not needed
    pass


class LayerWalk:
    """The stream of a text in a model, before the layer `place`; `stream_NTD` is on the model's device, in its dtype."""

    def __init__(self, model: PreTrainedModel, ids_NT: Tensor, rows: int) -> None:
        """Begin before the first layer. `rows`, which are worked through at once, have to divide the text's: layers know their number."""
        assert len(ids_NT) % rows == 0
        self.family = family_of(model.config)
        self.layers: list[nn.Module] = list(model.get_submodule(self.family.layers).children())
        self.rows = rows
        self.place = 0
        self._arguments = _arguments(model, self.layers, ids_NT[:rows].to(model.device))
        self.stream_NTD = torch.cat([_embedded(model, self.layers[0], ids_NT[part].to(model.device)) for part in self._parts(len(ids_NT))])

    def _parts(self, count: int) -> Iterator[slice]:
        return (slice(start, start + self.rows) for start in range(0, count, self.rows))

    def run(self, names: tuple[str, ...] = (), caught: Caught | None = None) -> Iterator[tuple[slice, Tensor]]:
        """Yield the stream behind the layer, a batch at a time, without going on; `caught` gets the inputs of the modules named."""
        layer = self.layers[self.place]
        inputs: dict[str, Tensor] = {}
        handles = [layer.get_submodule(name).register_forward_pre_hook(_keep(inputs, name)) for name in names]
        try:
            for part in self._parts(len(self.stream_NTD)):
                behind_BTD = _first(layer(self.stream_NTD[part], **self._arguments[self.place]))
                if caught is not None:
                    caught(part, inputs)
                yield part, behind_BTD
        finally:
            for handle in handles:
                handle.remove()

    def advance(self) -> None:
        """Go on to behind the layer."""
        for part, behind_BTD in self.run():
            self.stream_NTD[part] = behind_BTD
        self.place += 1


def _keep(inputs: dict[str, Tensor], name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def keep(_module: nn.Module, given: tuple[Tensor, ...]) -> None:
        inputs[name] = given[0]

    return keep


def _first(output: Any) -> Tensor:
    found: Tensor = output if isinstance(output, Tensor) else output[0]
    return found


def _arguments(model: PreTrainedModel, layers: list[nn.Module], ids_BT: Tensor) -> list[dict[str, Any]]:
    """Return what each layer is given beside the stream."""
    found: list[dict[str, Any]] = []

    def note(_layer: nn.Module, _inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        found.append({name: value for name, value in keywords.items() if name != "hidden_states"})

    handles = [layer.register_forward_pre_hook(note, with_kwargs=True) for layer in layers]
    try:
        model.base_model(input_ids=ids_BT, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _embedded(model: PreTrainedModel, first: nn.Module, ids_BT: Tensor) -> Tensor:
    """Return the stream before the first layer."""
    found: list[Tensor] = []

    def stop(_layer: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        found.append(given_stream(inputs, keywords))
        raise _BehindTheEmbedding

    handle = first.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        model.base_model(input_ids=ids_BT, use_cache=False)
    except _BehindTheEmbedding:
        pass
    finally:
        handle.remove()
    return found[0]
