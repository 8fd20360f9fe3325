"""The blocks of a decoder layer as data: what each reads and writes, and the norms around it.

Owns the words for it. What stands around the layers is family.py's; the families themselves, and so the names of layers, are known.py's.

A layer is a row of blocks. Each takes the residual stream, as it is or through a norm, and adds what it writes, as it is or through a norm:
x ← x + r·behind(write(inside(readers(norm(x))))). In a parallel family all blocks of a layer take the stream as it came into the layer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Literal

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
    POSITIONS = auto()
    """Writes beside the embedding: rows are places in the text, columns are channels."""
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
    """A linear layer that reads the stream. `parts` says what its output rows are, one after the other where it is several in one.

    `by_head` says that several are so head by head, each with all its parts. LoRA adapts a reader but where it only weighs what others
    say (`adapted`), as a router does.
    """

    name: str
    parts: tuple[Part, ...] = ()
    adapted: bool = True
    by_head: bool = False


@dataclass(frozen=True)
class Experts:
    """Feed-forward layers of which each token goes through a few.

    In a checkpoint each has matrices of its own, `module`.<number>.<name>. In memory there is one tensor of all, experts first, for each
    name in `readers` and `writers`; beside it stand the names in a checkpoint of what its rows are, one after the other.
    """

    module: str
    readers: tuple[tuple[str, tuple[str, ...]], ...]
    writers: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def stored(self) -> tuple[str, ...]:
        """The names of an expert's matrices in a checkpoint."""
        return tuple(name for _, names in (*self.readers, *self.writers) for name in names)

    def role(self, module: str, parameter: str) -> Role | None:
        """Return what a tensor of the experts does; None where it is none of theirs. `module` is relative to the layer."""
        if module == self.module:
            names = (tuple(name for name, _ in kind) for kind in (self.readers, self.writers))
            name = parameter
        else:
            names = (tuple(name for _, stored in kind for name in stored) for kind in (self.readers, self.writers))
            match = re.fullmatch(re.escape(self.module) + r"\.\d+\.(.+)", module)
            name = "" if match is None else match[1]
        reads, writes = names
        return Role.READ if name in reads else Role.WRITE if name in writes else None


@dataclass(frozen=True)
class Block:
    """One block of a decoder layer; all names are relative to the layer.

    `module` computes it: its first argument is what the readers get, its output what is written. `write` is the module whose output is
    written, by default a linear layer; where it is made of several, `writers` are those, and `experts` come in beside them. `norm` stands
    before the readers, None where they take the stream as it is; `norm_behind` between the write and the stream. `inside` are modules that
    do not touch the stream, `across` those of them that mix units, such as a norm over all heads: no unit can go without changing the
    others.
    """

    kind: Kind
    module: str
    readers: tuple[Reader, ...]
    write: str
    norm: str | None
    norm_behind: str | None = None
    inside: tuple[str, ...] = ()
    across: tuple[str, ...] = ()
    writers: tuple[str, ...] | None = None
    experts: Experts | None = None

    @property
    def linear_writers(self) -> tuple[str, ...]:
        """The linear layers whose output rows are channels."""
        return (self.write,) if self.writers is None else self.writers

    def is_expert(self, module: str) -> bool:
        """Return whether a module of the layer is one of the block's experts, or all of them."""
        return self.experts is not None and (module == self.experts.module or module.startswith(f"{self.experts.module}."))

    @property
    def writes_linearly(self) -> bool:
        """Whether what comes to the stream is the output of one linear layer."""
        return self.writers is None and self.experts is None and self.norm_behind is None

    @property
    def reader_names(self) -> tuple[str, ...]:
        """The names of the linear layers that read the stream."""
        return tuple(reader.name for reader in self.readers)

    @property
    def expert_readers(self) -> tuple[str, ...]:
        """The tensors of experts that read the stream, by their names in memory."""
        return () if self.experts is None else tuple(f"{self.experts.module}.{name}" for name, _ in self.experts.readers)

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
        yield from ((name, Role.WRITE) for name in self.linear_writers)
        yield from ((reader.name, Role.READ) for reader in self.readers)
        yield from ((name, Role.INSIDE) for name in (*self.inside, *self.across, self.shortcut))
        if self.norm is not None:
            yield self.norm, Role.NORM
        if self.norm_behind is not None:
            yield self.norm_behind, Role.NORM_BEHIND


@dataclass(frozen=True)
class Site:
    """A place where the stream is read: the norm there, None where there is none, and the linear layers behind it, by their full names.

    `experts` are tensors that read it too.
    """

    norm: str | None
    readers: tuple[str, ...]
    experts: tuple[str, ...] = ()

    @property
    def weights(self) -> tuple[str, ...]:
        """The tensors that read the stream here, by their names in memory."""
        return (*(f"{reader}.weight" for reader in self.readers), *self.experts)

    @property
    def name(self) -> str:
        """The module that is given the stream as it is here, by which the site is known."""
        return self.norm or self.readers[0]
