"""What a changed checkpoint computes before its tensors are rounded to the dtype they are written in: in fp32, a layer at a time.

The change is the very function that made the written tensors, given fp32 ones, which it returns as fp32. So a mistake in a fold shows at
its full size also where half precision would hide it; and each tensor that was written must be the rounding of its own. No more than a
layer, the embedding and the head are held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.initialization import no_init_weights

from pat.checkpoints import checkpoint
from pat.checkpoints.random_rounding import steps_at
from pat.checkpoints.stored import StoredTensor, stored_tensors
from pat.families.known import Family, Role, family_of
from pat.io.tensors import opened

Change = Callable[[str, Tensor], Iterable[tuple[str, Tensor]]]
"""From a tensor of a checkpoint to those of the changed one that it becomes, in the same dtype: one, none, or several."""
Disturbance = Callable[[Tensor, str], Tensor]
"""From an fp32 tensor, and the dtype that it is stored in, to one that is off by what computing in so many digits makes."""
SUM_ERROR = 1e-6
"""What fp32 sums of a fold may be off by, of the tensor's largest entry: an entry that is nearly zero is a difference of large ones."""
ROWS_AT_ONCE = 16384
"""Embedding and head are changed by so many rows, which no change mixes; in one piece they would need several times their size."""
OF_VOCABULARY = (Role.EMBEDDING, Role.HEAD)


@dataclass(frozen=True)
class Written:
    """A checkpoint that was written: from which one, where, and by which change of its tensors.

    `in_one_piece` names modules whose matrix is changed as a whole.
    """

    source: Path
    folder: Path
    change: Change
    in_one_piece: frozenset[str] = frozenset()


@torch.no_grad()
def unrounded_logits(written: Written, ids_BT: Tensor, disturb: Disturbance | None = None) -> Tensor:
    """Return the logits of the changed model before rounding, (B, T, V); with `disturb`, of tensors that it has disturbed.

    Raises RuntimeError where tensors are missing or left over, or what was written is not the rounding of what was meant.
    """
    config = checkpoint.load_config(written.folder)
    family = family_of(config)
    with init_empty_weights(include_buffers=False), no_init_weights():  # each would be drawn first, on the meta device too
        model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    supply = _Supply(written, family, disturb, tied=bool(config.tie_word_embeddings))
    layers = (f"{family.layers}.{layer}" for layer in range(config.num_hidden_layers))
    for name in (*family.entrance, *layers, family.final_norm, family.head):
        module = model.get_submodule(name)
        module.register_forward_pre_hook(partial(_fill, supply, name))
        module.register_forward_hook(lambda module, _inputs, _output: module.to("meta") and None)
    logits: Tensor = model.eval()(input_ids=ids_BT, use_cache=False).logits
    supply.check_empty()
    return logits


def _fill(supply: _Supply, name: str, module: nn.Module, _inputs: Any) -> None:
    made = {parameter: supply.tensor(f"{name}.{parameter}", len(tensor)) for parameter, tensor in module.named_parameters()}
    module.load_state_dict(made, assign=True)


class _Supply:
    """The changed tensors in the order of the computation; each is made when it is first asked for, or a later one is."""

    def __init__(self, written: Written, family: Family, disturb: Disturbance | None, *, tied: bool) -> None:
        self._where = written.folder
        self._family = family
        self._stages = _stages(written, family, disturb)
        self._waiting: dict[str, Tensor] = {}
        self._head, self._embedding = f"{family.head}.weight", f"{family.embedding}.weight"
        self._tied = tied
        self._tied_matrix: Tensor | None = None

    def tensor(self, name: str, experts: int) -> Tensor:
        """Return a tensor as the model has it; one of `experts` experts is put together of theirs."""
        parts = self._family.stored_parts(name, experts)
        if parts is None:
            return self.take([name])[0]
        return torch.stack([torch.cat(self.take(of_expert)) for of_expert in parts])

    def take(self, names: list[str]) -> list[Tensor]:
        """Return these tensors and let go of them."""
        wanted = {self._embedding if name == self._head and self._tied else name: name for name in names}
        if self._tied_matrix is not None and self._embedding in wanted:
            return [self._tied_matrix]
        while missing := [name for name in wanted if name not in self._waiting]:
            stage = next(self._stages, None)
            if stage is None:
                raise RuntimeError(f"{self._where}: nothing of its base became {missing[0]}; a tensor is lost")
            self._waiting |= stage
        if self._tied and self._embedding in wanted:
            self._tied_matrix = self._waiting[self._embedding]
        return [self._waiting.pop(name) for name in wanted]

    def check_empty(self) -> None:
        """Raise RuntimeError where a changed tensor was asked for by no module."""
        for stage in self._stages:
            self._waiting |= stage
        if self._waiting:
            raise RuntimeError(f"{self._where}: its model has no place for {', '.join(sorted(self._waiting)[:4])}")


def _stages(written: Written, new_family: Family, disturb: Disturbance | None) -> Iterator[dict[str, Tensor]]:
    """Yield the changed tensors of embedding, each layer, final norm and head of the source, in fp32, unrounded, `disturb`ed if need be.

    `new_family` is that of the written checkpoint, which may be another one than the source's.
    """
    config = checkpoint.load_config(written.source)
    family, stored, rounded = family_of(config), stored_tensors(written.source), stored_tensors(written.folder)
    groups: dict[tuple[int, int], list[str]] = {}
    for name in checkpoint.unique_names(written.source, config):
        groups.setdefault(_place(family, name), []).append(name)
    for place in sorted(groups):
        stage: dict[str, Tensor] = {}
        for name in groups[place]:
            with opened(stored[name].path) as shard:
                tensor = shard.get_tensor(name)
            by_rows = family.role(name) in OF_VOCABULARY and name.rpartition(".")[0] not in written.in_one_piece
            stage |= _changed(written, new_family, name, tensor.split(ROWS_AT_ONCE) if by_rows else (tensor,))
        for new_name, meant in stage.items():
            _check_rounded(written.folder, new_name, rounded.get(new_name), meant)
        made = stage if disturb is None else {name: disturb(it, rounded[name].dtype) for name, it in stage.items()}
        yield {new_family.in_memory(name): tensor for name, tensor in made.items()}


def _check_rounded(folder: Path, name: str, stored: StoredTensor | None, meant: Tensor) -> None:
    """Raise RuntimeError unless a stored tensor is the rounding of an fp32 one."""
    if stored is None or stored.shape != tuple(meant.shape):
        raise RuntimeError(f"{folder}: {name} was not written in the shape {list(meant.shape)}; the checkpoint is wrong")
    with opened(stored.path) as shard:
        found = shard.get_tensor(name).float()
    allowed = steps_at(meant, stored.dtype).mul_(0.5).add_(SUM_ERROR * meant.abs().max().item())
    if bool((found.sub_(meant).abs_() > allowed).any()):
        raise RuntimeError(f"{folder}: {name} as written is not the rounding of what it should be; the checkpoint is wrong")


def _place(family: Family, name: str) -> tuple[int, int]:
    """Return where in the computation a tensor is needed."""
    match family.role(name):
        case Role.EMBEDDING | Role.POSITIONS:
            return 0, 0
        case Role.FINAL_NORM:
            return 2, 0
        case Role.HEAD:
            return 3, 0
        case _:
            place = family.place(name)
            assert place is not None
            return 1, place[0]


def _changed(written: Written, new_family: Family, name: str, pieces: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return what a tensor, given in pieces of its rows, becomes."""
    parts: dict[str, list[Tensor]] = {}
    for piece in pieces:
        for new_name, changed in written.change(name, piece.float()):
            parts.setdefault(new_name, []).append(changed)
    return {new_name: _joined(new_family, new_name, made) for new_name, made in parts.items()}


def _joined(new_family: Family, name: str, made: Sequence[Tensor]) -> Tensor:
    """Return a tensor of what the pieces of another have become.

    What is not of the vocabulary, such as a shortcut that comes with the embedding, comes again with every piece.
    """
    return torch.cat(list(made)) if len(made) > 1 and new_family.role(name) in OF_VOCABULARY else made[0]
