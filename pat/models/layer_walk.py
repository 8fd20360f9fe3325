"""A text's way through a decoder, layer by layer: the stream of all its tokens is held, and moved on through one layer at a time.

It is held in host memory; on the model's device are one batch of it and what one layer makes of that, however long the text is.
What a layer is given beside the stream (positions, masks) is what the model itself gives it, taken from one forward pass.
Axes: N rows of text, B rows of a batch, T tokens, D channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from pat.families.known import family_of
from pat.models.held_stream import HeldStream
from pat.models.hooks import removed_behind, stream_before


class LayerWalk:
    """The `stream` of a text in a model, before the layer `place`, in the model's dtype."""

    def __init__(self, model: PreTrainedModel, ids_NT: Tensor, rows: int) -> None:
        """Begin before the first layer. `rows`, which are worked through at once, have to divide the text's: layers know their number."""
        assert len(ids_NT) % rows == 0
        self.family = family_of(model.config)
        self.layers: list[nn.Module] = list(model.get_submodule(self.family.layers).children())
        self.place = 0
        self._arguments = _arguments(model, self.layers, ids_NT[:rows].to(model.device))
        self.stream = HeldStream(model.device)
        for batch, ids_BT in enumerate(ids_NT.split(rows)):
            embed = partial(model.base_model, input_ids=ids_BT.to(model.device), use_cache=False)
            self.stream.put(batch, stream_before(self.layers[0], embed))

    def run(self, names: Sequence[str] = (), to: str | None = None) -> Iterator[tuple[int, Tensor, Mapping[str, Tensor]]]:
        """Yield each batch's number, its stream behind the layer and the inputs of the modules named, by name, without going on.

        `to` names a module of the layer before which it stops: then the stream is that module's input.
        """
        layer = self.layers[self.place]
        inputs: dict[str, Tensor] = {}
        with removed_behind(layer.get_submodule(name).register_forward_pre_hook(_keep(inputs, name)) for name in names):
            for batch, stream_BTD in enumerate(self.stream):
                run = partial(layer, stream_BTD, **self._arguments[self.place])
                yield batch, _first(run()) if to is None else stream_before(layer.get_submodule(to), run), inputs

    def advance(self, inside: Mapping[str, HeldStream] | None = None) -> None:
        """Go on to behind the layer; on the way `inside` takes up the inputs of modules of the layer, by the module's name."""
        inside = inside or {}
        for batch, behind_BTD, inputs in self.run(tuple(inside)):
            for name, stream in inside.items():
                stream.put(batch, inputs[name].view_as(behind_BTD))  # whose rows may lie one after the other
            self.stream.put(batch, behind_BTD)
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

    with removed_behind([layer.register_forward_pre_hook(note, with_kwargs=True) for layer in layers]):
        model.base_model(input_ids=ids_BT, use_cache=False)
    return found
