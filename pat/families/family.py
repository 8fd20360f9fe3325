"""A model family: its blocks and what stands around the layers, and what follows from them. No torch, and no names of layers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pat.errors import UserError
from pat.families.blocks import EMBEDDING_SHORTCUT, Block, Kind, Role, Site


@dataclass(frozen=True)
class Family:
    """One architecture: the blocks of its layers, alike in all of them, and what stands around the layers.

    `gain_offset` is 1 where the norms multiply by 1 + g instead of g. `embedding_factor` says that the model multiplies its embedding by
    sqrt(hidden_size). `residual_factor` names the field of the config by which all that is written is multiplied, `eps` that of the norms.
    `parallel` says that a layer's blocks all read the stream as it comes into the layer. `per_layer` are the fields of the config that
    say something of each layer, in a list, `alike` those that must have these values, or layers would be of several kinds.
    `uneven_heads_as` is a model type with the same arithmetic for weights without biases, where the family's own config refuses a head
    count that does not divide the hidden size. `tied_by_default` is what a config without `tie_word_embeddings` means.

    `positions` is an embedding of places that is added to that of tokens, `head_in_files` what checkpoints call the head, where they have
    another name for it. `neurons` is the config's field for the size of a feed-forward block. `subtracts_mean` says that its norms take off
    the mean of all channels (LayerNorm), `heads_fill_width` that its heads are hidden size / heads wide, whatever its config says;
    `way_out` is then what a user can do instead. `needed`
    are fields that must have these values, each with the reason, and `older_positions` the names under which transformers 4 has the
    numbers of `rope_parameters`.
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
    alike: tuple[tuple[str, object], ...] = ()
    uneven_heads_as: str | None = None
    tied_by_default: bool = False
    positions: str | None = None
    head_in_files: str | None = None
    neurons: str = "intermediate_size"
    subtracts_mean: bool = False
    heads_fill_width: bool = False
    way_out: str | None = None
    needed: tuple[tuple[str, object, str], ...] = ()
    older_positions: tuple[tuple[str, str], ...] = (("rope_theta", "rope_theta"), ("partial_rotary_factor", "partial_rotary_factor"))

    @property
    def entrance(self) -> tuple[str, ...]:
        """The modules that make the stream, before the first layer."""
        return (self.embedding,) if self.positions is None else (self.embedding, self.positions)

    @property
    def stored_head(self) -> str:
        """What a checkpoint calls the head."""
        return self.head_in_files or self.head

    def in_memory(self, tensor: str) -> str:
        """Return the name in memory of a checkpoint's tensor; of an expert's its own."""
        module, _, parameter = tensor.rpartition(".")
        return f"{self.head}.{parameter}" if module == self.stored_head else tensor

    @property
    def readers(self) -> tuple[str, ...]:
        """The linear layers that read the stream inside a decoder layer."""
        return tuple(name for block in self.blocks for name in block.reader_names)

    @property
    def norms(self) -> tuple[str, ...]:
        """The norms over the channels inside a decoder layer, before and behind its blocks."""
        named = (norm for block in self.blocks for norm in (block.norm, block.norm_behind) if norm is not None)
        return tuple(dict.fromkeys(named))

    @property
    def linears(self) -> tuple[str, ...]:
        """The linear layers inside a decoder layer: what LoRA adapts."""
        adapted = [reader.name for block in self.blocks for reader in block.readers if reader.adapted]
        return (*adapted, *(name for block in self.blocks for name in block.linear_writers))

    @property
    def has_experts(self) -> bool:
        """Whether some of its feed-forward layers are experts."""
        return any(block.experts is not None for block in self.blocks)

    def weighted_in_layer(self, experts: int) -> tuple[str, ...]:
        """Return the modules of a layer that have weights in a checkpoint, norms left out; of experts there are so many."""
        found = [*self.readers, *(name for block in self.blocks for name in block.linear_writers)]
        for block in self.blocks:
            if block.experts is not None:
                found += [f"{block.experts.module}.{number}.{name}" for number in range(experts) for name in block.experts.stored]
        return tuple(found)

    def stored_parts(self, parameter: str, experts: int) -> list[list[str]] | None:
        """Return the tensors in a checkpoint that one of all experts in memory is made of: of each expert those whose rows follow another.

        None for a tensor that a checkpoint holds under its own name.
        """
        module, _, name = parameter.rpartition(".")
        if (place := self.place(module)) is None:
            return None
        for block in self.blocks:
            if block.experts is None or place[1] != block.experts.module:
                continue
            for in_memory, stored in (*block.experts.readers, *block.experts.writers):
                if name == in_memory:
                    return [[f"{module}.{number}.{each}.weight" for each in stored] for number in range(experts)]
        return None

    def write_of(self, module: str) -> str:
        """Return the write that a module's output is a part of, by its full name: what an HSM stands behind."""
        if (place := self.place(module)) is not None:
            for block in self.blocks:
                if place[1] in block.linear_writers or block.is_expert(place[1]):
                    return self.in_layer(place[0], block.write)
        return module

    def is_expert(self, module: str) -> bool:
        """Return whether a module is one of a layer's experts, or all of them."""
        place = self.place(module)
        return place is not None and any(block.is_expert(place[1]) for block in self.blocks)

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
                tuple(self.in_layer(layer, f"{experts.module}.{name}") for name, _ in experts.readers)
                if (experts := block.experts)
                else (),
            )
            for layer in range(layer_count)
            for block in self.blocks
        ]
        return (*in_layers, Site(self.final_norm, (self.head,)))

    def stream_norms(self, layer_count: int) -> tuple[str, ...]:
        """Module names of all norms through which the stream is read, in the order of the computation."""
        return tuple(dict.fromkeys(site.norm for site in self.sites(layer_count) if site.norm is not None))

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
                if place[1] in block.reader_names or block.is_expert(place[1]):
                    return place[0], block
        raise KeyError(module)

    def role(self, tensor: str) -> Role:
        """Return what a checkpoint's tensor does. Raises UserError on a name this family does not have."""
        module, _, parameter = tensor.rpartition(".")
        outside = {self.embedding: Role.EMBEDDING, self.final_norm: Role.FINAL_NORM, self.head: Role.HEAD, self.stored_head: Role.HEAD}
        if self.positions is not None:
            outside[self.positions] = Role.POSITIONS
        if module in outside:
            return outside[module]
        if (place := self.place(module)) is not None:
            for name, role in self._roles_in_layer():
                if name == place[1]:
                    return role
            for block in self.blocks:
                if block.experts is not None and (found := block.experts.role(place[1], parameter)) is not None:
                    return found
        raise UserError(
            f"tensor {tensor!r} is not part of a {self.model_type!r} model as pat knows it; "
            "its entry in pat/families/known.py has to name every module"
        )

    def _roles_in_layer(self) -> Iterator[tuple[str, Role]]:
        for block in self.blocks:
            yield from block.roles()
        yield EMBEDDING_SHORTCUT, Role.INSIDE

    def holds_together(self, kind: Kind) -> bool:
        """Return whether units of a kind cannot go: something in their blocks mixes all of them, or heads have to fill the width."""
        return (kind == "groups" and self.heads_fill_width) or any(block.across for block in self.blocks if block.kind == kind)

    @property
    def width_obstacle(self) -> str | None:
        """Why no channel of the stream can go; None where some can."""
        if not self.heads_fill_width:
            return None
        reason = "its stock class has no heads of another size than hidden size / heads, so that no channel can go"
        return f"{reason}; {self.way_out}" if self.way_out else f"{reason}; layers and feed-forward neurons can"

    @property
    def readers_obstacle(self) -> str | None:
        """Why its readers cannot be refitted to some channels; None where they can."""
        if self.width_obstacle is None and self.subtracts_mean:
            return "its norms subtract the mean of all channels, which a fit to some of them does not account for"
        return self.width_obstacle

    @property
    def rotation_obstacle(self) -> str | None:
        """Why the stream cannot be put into another basis; None where it can."""
        if self.subtracts_mean:
            return "its norms subtract the mean of all channels, which a rotation would mix; keep the native basis"
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
    def refit_obstacle(self) -> str | None:
        """Why none of its writes can be refitted; None where some can."""
        if any(block.writes_linearly for block in self.blocks):
            return None
        return "norms stand behind all its writes, so that what reaches the stream does not follow them linearly"

    @property
    def units_obstacle(self) -> str | None:
        """Why no heads or neurons can go; None where they can."""
        return "its feed-forward blocks are experts, whose neurons are not counted alike" if self.has_experts else None

    @property
    def compaction_obstacle(self) -> str | None:
        """Why a tuning's model cannot be cut once its mask is closed; None where it can."""
        return "its feed-forward blocks are experts, which do not write through one layer" if self.has_experts else None

    @property
    def recomputation_obstacle(self) -> str | None:
        """Why its feed-forward blocks cannot be computed again by themselves in a backward pass, and what can; None where they can."""
        whole = "set true, which computes whole layers again"
        if self.has_experts:
            return f"its feed-forward blocks are experts behind a router; {whole}"
        for block in self.blocks:
            layers = (*block.reader_names, block.write)
            if block.kind == "neurons" and not all(name.startswith(f"{block.module}.") for name in layers):
                return f"its feed-forward layers ({', '.join(layers)}) lie in the decoder layer itself, in no module of their own; {whole}"
        return None

    @property
    def reshaping_obstacle(self) -> str | None:
        """Why its layers cannot have different numbers of heads in one model; None where they can."""
        if self.units_obstacle is not None:
            return self.units_obstacle
        if self.heads_fill_width:
            return "its heads have to fill the hidden size in every layer; llm-pruner-uniform takes neurons alone"
        for block in self.blocks:
            for reader in block.readers:
                if block.kind == "groups" and len(reader.parts) > 1:
                    parts = ", ".join(reader.parts)
                    return f"{reader.name} is {parts} in one, which the model takes apart by one number of heads for all layers"
        if self.parallel:
            return "its blocks read the stream side by side; llm-pruner-uniform takes as many heads and neurons from every layer"
        return None
