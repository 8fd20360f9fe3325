"""A model on paper: what it holds, from its family and its sizes, and what pruners would leave of it. Counts shapes; no weights, no torch.

A check of an experiment asks here before anything is made; a pruner counts the tensors of the checkpoint that it is given (sizes.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from pat.families.blocks import Block, Reader
from pat.families.known import Family, family_named, family_of, head_size, kv_heads, neurons
from pat.models.depth import layers_to_drop, neurons_by_layers
from pat.models.sizes import Kept, matched_units, matched_width, nominal_units, nominal_width, slicing_of, step_of, units_in, window
from pat.settings.jobs import PruneSettings

Align = int | Literal["auto"]


@dataclass(frozen=True)
class PaperModel:
    """A model of a family without biases; `head_size` None stands for hidden size over heads.

    `stored` are the names and shapes of a checkpoint's tensors where there is one: biases count then too.
    """

    family: Family
    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    intermediate_size: int
    head_size: int | None = None
    tied: bool = False
    stored: Mapping[str, tuple[int, ...]] | None = None

    @classmethod
    def of(cls, shape: Any, hidden_size: int | None = None, *, tied: bool | None = None) -> PaperModel:
        """Return the model of a shape as settings have it, or the same with another hidden size or tie; its heads keep their size."""
        return cls(
            family_named(shape.family),
            shape.vocab_size,
            hidden_size or shape.hidden_size,
            shape.layers,
            shape.heads,
            shape.kv_heads or shape.heads,
            shape.intermediate_size,
            getattr(shape, "head_size", None) or shape.hidden_size // shape.heads,
            shape.tie_embeddings if tied is None else tied,
        )

    @classmethod
    def of_config(cls, config: Any, shapes: Mapping[str, tuple[int, ...]]) -> PaperModel:
        """Return the model of a stock config, counted by the names and shapes of its tensors."""
        model = cls(
            family_of(config), config.vocab_size, config.hidden_size, config.num_hidden_layers, config.num_attention_heads,
            kv_heads(config), neurons(config), head_size(config), bool(config.tie_word_embeddings),
        )  # fmt: skip
        return model.with_tensors(shapes)

    def with_tensors(self, shapes: Mapping[str, tuple[int, ...]]) -> PaperModel:
        """Return the same model, counted by the tensors of its checkpoint; a head that is the embedding once more is not counted."""
        heads = {f"{head}.weight" for head in (self.family.head, self.family.stored_head)}
        return replace(self, stored={name: shape for name, shape in shapes.items() if not (self.tied and name in heads)})

    @property
    def size_of_a_head(self) -> int:
        """How many rows one head has."""
        return self.head_size or self.hidden_size // self.heads

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the names and shapes of its tensors."""
        if self.stored is not None:
            return dict(self.stored)
        family, whole = self.family, (self.vocab_size, self.hidden_size)
        in_layer = {name: shape for block in family.blocks for name, shape in self._block(block).items()}
        return {
            f"{family.embedding}.weight": whole,
            **{f"{family.in_layer(index, name)}.weight": shape for index in range(self.layers) for name, shape in in_layer.items()},
            f"{family.final_norm}.weight": (self.hidden_size,),
            **({} if self.tied else {f"{family.head}.weight": whole}),
        }

    def _block(self, block: Block) -> dict[str, tuple[int, ...]]:
        norms = [norm for norm in (block.norm, block.norm_behind) if norm is not None]
        inner = self.heads * self.size_of_a_head if block.kind == "groups" else self.intermediate_size
        return {
            **{reader.name: (self._rows(reader), self.hidden_size) for reader in block.readers},
            block.write: (self.hidden_size, inner),
            **dict.fromkeys(norms, (self.hidden_size,)),
        }

    def _rows(self, reader: Reader) -> int:
        outer = self.kv_heads * self.size_of_a_head
        rows = {"query": self.heads * self.size_of_a_head, "key": outer, "value": outer}
        return sum(rows.get(part, self.intermediate_size) for part in reader.parts)

    def writes(self) -> list[tuple[int, int]]:
        """Return the outputs and inputs of every layer that writes to the stream within a decoder layer."""
        shapes = self.shapes()
        names = [self.family.in_layer(index, block.write) for index in range(self.layers) for block in self.family.blocks]
        return [(shape[0], shape[1]) for shape in (shapes[f"{name}.weight"] for name in names)]

    @property
    def widest_write(self) -> int:
        """The most inputs that such a layer has."""
        return max(inputs for _, inputs in self.writes())

    @property
    def parameters(self) -> int:
        """How many parameters it has, each counted once."""
        return sum(map(math.prod, self.shapes().values()))

    @property
    def share_of_a_layer(self) -> float:
        """Which part of its parameters one layer has."""
        within = sum(math.prod(shape) for name, shape in self.shapes().items() if self.family.place(name) is not None)
        return within / self.layers / self.parameters


def sliced_width(model: PaperModel, ratio: float, settings: PruneSettings, align: Align) -> int:
    """Return how many directions of the stream are kept before each block. Raises SettingError where the ratio cannot be reached."""
    step = step_of(model.hidden_size, align)
    if settings.size == "nominal":
        return nominal_width(model.hidden_size, ratio, step)
    slicing = slicing_of(model.shapes(), model.family, model.layers, model.hidden_size, tied=model.tied)
    return matched_width(model.parameters, slicing, model.hidden_size, ratio, step)


def kept_units(model: PaperModel, ratio: float, settings: PruneSettings, align: Align) -> Kept:
    """Return the units that every layer keeps. Raises SettingError where the ratio cannot be reached."""
    return _kept(model, range(model.layers), ratio, settings, align)


def kept_inner_units(model: PaperModel, ratio: float, settings: PruneSettings, align: Align) -> Kept:
    """Return the units that a layer keeps that is not protected. Raises SettingError where the ratio cannot be reached."""
    return _kept(model, window(model.layers, settings.protect_first, settings.protect_last), ratio, settings, align)


def _kept(model: PaperModel, layers: range, ratio: float, settings: PruneSettings, align: Align) -> Kept:
    units = units_in(model.shapes(), model.family, model.kv_heads, model.intermediate_size, layers)
    allowed = partial(_may_go, not model.family.holds_together("groups"))
    if settings.size == "nominal":
        return nominal_units(units, model.size_of_a_head, ratio, allowed)
    return matched_units(model.parameters, units, ratio, step_of(model.intermediate_size, align), allowed)


def _may_go(movable: bool, _groups: int) -> bool:
    return movable


def dropped_layers(model: PaperModel, ratio: float, _settings: PruneSettings, _align: Align) -> int:
    """Return how many layers go. Raises SettingError where the ratio cannot be reached."""
    return layers_to_drop(model.layers, model.share_of_a_layer, ratio)


def layers_and_neurons(model: PaperModel, ratio: float, _settings: PruneSettings, align: Align) -> tuple[tuple[int, int], ...]:
    """Return each number of layers that may go with the neurons that the others then keep; text tells which of these it is.

    Raises SettingError where the ratio cannot be reached.
    """
    units = units_in(model.shapes(), model.family, model.kv_heads, model.intermediate_size, range(model.layers))
    of_a_layer, of_a_neuron = model.share_of_a_layer * model.parameters, units["neurons"].parameters / model.layers
    found = neurons_by_layers(model.layers, model.parameters, of_a_layer, of_a_neuron, model.intermediate_size, ratio, align)
    return tuple(found.items())
