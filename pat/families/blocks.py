"""A model family as data: the blocks of a decoder layer, what each reads and writes, and the norms around it.

Owns the words for it and what follows from them alone; the families themselves, and so the names of layers, are families.py's. No torch.

A layer is a row of blocks. Each takes the residual stream, as it is or through a norm, and adds what it writes, as it is or through a norm:
x ← x + r·behind(write(inside(readers(norm(x))))). In a parallel family all blocks of a layer take the stream as it came into the layer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Literal

from pat.errors import UserError

Kind = Literal["groups", "neurons"]
"""What a block is made of: key-value heads with the query heads that share them, or neurons of a feed-forward block."""
Part = Literal["query", "key", "value", "gate", "up"]
"""What the output rows of a reader are: of heads, a unit's rows lie together; a neuron has one row of each."""
EMBEDDING_SHORTCUT = "embedding_shortcut"
"""In a reshaped model's first layer: from the basis of an embedding that is the head too to the one before the first block."""


class Role(Enum):
    """What a tensor does with the residual stream."""

    EMBEDDING = auto()
    """Writes: rows are tokens, columns are channels."""
    WRITE = auto()
    """Writes: output rows are channels."""
    READ = auto()
    """Reads: input columns are channels."""
    NORM = auto()
    """Gain over the channels, before readers inside a layer."""
    NORM_BEHIND = auto()
    """Gain over the channels of what a block has written, before it is added to the stream."""
    FINAL_NORM = auto()
    """Gain over the channels, before the head."""
    HEAD = auto()
    """Reads: rows are tokens, columns are channels."""
    INSIDE = auto()
    """Does not touch the stream, such as a norm over a head."""


@dataclass(frozen=True)
class Reader:
    """A linear layer that reads the stream. `parts` says what its output rows are, one after the other where it is several in one."""

    name: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Block:
    """One block of a decoder layer; all names are relative to the layer.

    `module` computes it: its first argument is what the readers get, its output what is written. `norm` stands before the readers, None
    where they take the stream as it is; `norm_behind` between the write and the stream. `inside` are modules that do not touch the stream,
    `across` those of them that mix units, such as a norm over all heads: no unit can go without changing the others.
    """

    kind: Kind
    module: str
    readers: tuple[Reader, ...]
    write: str
    norm: str | None
    norm_behind: str | None = None
    inside: tuple[str, ...] = ()
    across: tuple[str, ...] = ()

    @property
    def reader_names(self) -> tuple[str, ...]:
        """The names of the linear layers that read the stream."""
        return tuple(reader.name for reader in self.readers)

    @property
    def write_parts(self) -> tuple[Part, ...]:
        """What the input columns of the write are."""
        return ("query",) if self.kind == "groups" else ("up",)

    @property
    def shortcut(self) -> str:
        """In a reshaped model's layer: what leads from the basis before this block to the one behind it."""
        return "attention_shortcut" if self.kind == "groups" else "mlp_shortcut"

    def roles(self) -> Iterator[tuple[str, Role]]:
        """Yield each module of the block with what its tensors do."""
        yield self.write, Role.WRITE
        yield from ((reader.name, Role.READ) for reader in self.readers)
        yield from ((name, Role.INSIDE) for name in (*self.inside, *self.across, self.shortcut))
        if self.norm is not None:
            yield self.norm, Role.NORM
        if self.norm_behind is not None:
            yield self.norm_behind, Role.NORM_BEHIND


@dataclass(frozen=True)
class Site:
    """A place where the stream is read: the norm there, None where there is none, and the linear layers behind it, by their full names."""

    norm: str | None
    readers: tuple[str, ...]

    @property
    def name(self) -> str:
        """The module that is given the stream as it is here, by which the site is known."""
        return self.norm or self.readers[0]


@dataclass(frozen=True)
class Family:
    """One architecture: the blocks of its layers, alike in all of them, and what stands around the layers.

    `gain_offset` is 1 where the norms multiply by 1 + g instead of g. `embedding_factor` says that the model multiplies its embedding by
    sqrt(hidden_size). `residual_factor` names the field of the config by which all that is written is multiplied, `eps` that of the norms.
    `parallel` says that a layer's blocks all read the stream as it comes into the layer. `per_layer` are the fields of the config that
    say something of each layer, in a list. `uneven_heads_as` is a model type with the same arithmetic for weights without biases, where
    the family's own config refuses a head count that does not divide the hidden size. `tied_by_default` is what a config without
    `tie_word_embeddings` means.
    """

    model_type: str
    blocks: tuple[Block, ...]
    embedding: str
    layers: str
    final_norm: str
    head: str
    gain_offset: float = 0.0
    embedding_factor: bool = False
    residual_factor: str | None = None
    eps: str = "rms_norm_eps"
    parallel: bool = False
    per_layer: tuple[str, ...] = ("layer_types",)
    uneven_heads_as: str | None = None
    tied_by_default: bool = False

    @property
    def readers(self) -> tuple[str, ...]:
        """The linear layers that read the stream inside a decoder layer."""
        return tuple(name for block in self.blocks for name in block.reader_names)

    @property
    def norms(self) -> tuple[str, ...]:
        """The norms over the channels inside a decoder layer, before and behind its blocks."""
        return tuple(norm for block in self.blocks for norm in (block.norm, block.norm_behind) if norm is not None)

    @property
    def linears(self) -> tuple[str, ...]:
        """The linear layers inside a decoder layer: what LoRA adapts."""
        return (*self.readers, *(block.write for block in self.blocks))

    def in_layer(self, layer: int, name: str) -> str:
        """Return the full name of a layer's module."""
        return f"{self.layers}.{layer}.{name}"

    def place(self, name: str) -> tuple[int, str] | None:
        """Return the layer that a module or tensor is in and its name there; None where it is in none."""
        match = re.fullmatch(re.escape(self.layers) + r"\.(\d+)\.(.+)", name)
        return None if match is None else (int(match[1]), match[2])

    def writes(self, layer_count: int) -> tuple[str, ...]:
        """Module names of all writes to the stream, in the order of the computation: the embedding, and a layer's blocks in each layer."""
        return (self.embedding, *(self.in_layer(layer, block.write) for layer in range(layer_count) for block in self.blocks))

    def sites(self, layer_count: int) -> tuple[Site, ...]:
        """Return all places where the stream is read, in the order of the computation; the last is the head's."""
        in_layers = [
            Site(
                None if block.norm is None else self.in_layer(layer, block.norm),
                tuple(self.in_layer(layer, name) for name in block.reader_names),
            )
            for layer in range(layer_count)
            for block in self.blocks
        ]
        return (*in_layers, Site(self.final_norm, (self.head,)))

    def stream_norms(self, layer_count: int) -> tuple[str, ...]:
        """Module names of all norms through which the stream is read, in the order of the computation."""
        return tuple(site.norm for site in self.sites(layer_count) if site.norm is not None)

    def norms_behind(self, layer_count: int) -> tuple[str, ...]:
        """Module names of all norms between a write and the stream, in the order of the computation."""
        behind = [block.norm_behind for block in self.blocks if block.norm_behind is not None]
        return tuple(self.in_layer(layer, name) for layer in range(layer_count) for name in behind)

    def norm_before(self, module: str) -> str | None:
        """Return the norm whose output `module`, a reader or the head, gets; None where that is the stream as it is.

        Raises KeyError for any other module.
        """
        if module == self.head:
            return self.final_norm
        layer, block = self._reading(module)
        return None if block.norm is None else self.in_layer(layer, block.norm)

    def site_of(self, module: str) -> str:
        """Return the name of the site at which `module`, a reader or the head, reads the stream. Raises KeyError for any other module."""
        if module == self.head:
            return self.final_norm
        layer, block = self._reading(module)
        return self.in_layer(layer, block.norm or block.reader_names[0])

    def _reading(self, module: str) -> tuple[int, Block]:
        if (place := self.place(module)) is not None:
            for block in self.blocks:
                if place[1] in block.reader_names:
                    return place[0], block
        raise KeyError(module)

    def role(self, tensor: str) -> Role:
        """Return what a checkpoint's tensor does. Raises UserError on a name this family does not have."""
        module, _, _ = tensor.rpartition(".")
        outside = {self.embedding: Role.EMBEDDING, self.final_norm: Role.FINAL_NORM, self.head: Role.HEAD}
        if module in outside:
            return outside[module]
        if (place := self.place(module)) is not None:
            for name, role in self._roles_in_layer():
                if name == place[1]:
                    return role
        raise UserError(
            f"tensor {tensor!r} is not part of a {self.model_type!r} model as pat knows it; "
            "its entry in pat/families/known.py has to name every module"
        )

    def _roles_in_layer(self) -> Iterator[tuple[str, Role]]:
        for block in self.blocks:
            yield from block.roles()
        yield EMBEDDING_SHORTCUT, Role.INSIDE

    def holds_together(self, kind: Kind) -> bool:
        """Return whether units of a kind cannot go, because something in their blocks mixes all of them."""
        return any(block.across for block in self.blocks if block.kind == kind)

    @property
    def rotation_obstacle(self) -> str | None:
        """Why the stream cannot be put into another basis; None where it can."""
        for block in self.blocks:
            if block.norm_behind is not None:
                return (
                    f"behind {block.write} stands a norm ({block.norm_behind}) whose gain belongs to single channels, so that a rotation "
                    "of the stream cannot be folded into the write; keep the native basis"
                )
            if block.norm is None:
                return f"{block.reader_names[0]} reads the stream without a norm, which a rotation needs; keep the native basis"
        return None

    @property
    def reshaping_obstacle(self) -> str | None:
        """Why its layers cannot have different numbers of heads in one model; None where they can."""
        for block in self.blocks:
            for reader in block.readers:
                if block.kind == "groups" and len(reader.parts) > 1:
                    parts = ", ".join(reader.parts)
                    return f"{reader.name} is {parts} in one, which the model takes apart by one number of heads for all layers"
        return None
