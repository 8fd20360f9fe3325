"""What becomes of each tensor of a checkpoint in a GGUF file: its name there, its type, and what it is made of.

Fused layers are split where llama.cpp has one tensor for each part, experts are stacked, since it has one for all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import (
    GGML_QUANT_SIZES,
    MODEL_ARCH_NAMES,
    MODEL_TENSOR,
    TENSOR_NAMES,
    GGMLQuantizationType,
    TensorNameMap,
    get_tensor_name_map,
    quant_shape_to_byte_shape,
)

from pat.checkpoints import checkpoint
from pat.errors import UserError
from pat.export.gguf_families import Exported
from pat.families.known import Family, family_of, head_size

FALLBACK = GGMLQuantizationType.F16
"""The type of matrices whose rows the wanted type's blocks do not divide."""
BIAS = ".bias"
PARTS = {
    "query": MODEL_TENSOR.ATTN_Q,
    "key": MODEL_TENSOR.ATTN_K,
    "value": MODEL_TENSOR.ATTN_V,
    "gate": MODEL_TENSOR.FFN_GATE,
    "up": MODEL_TENSOR.FFN_UP,
}
EXPERT_NUMBER = re.compile(r"\.(\d+)(?=\.[^.]+\.[^.]+$)")
"""Where the name of an expert's tensor says which expert it is of."""


@dataclass(frozen=True)
class Planned:
    """One tensor of the file: its name there, its shape, the type it is stored in, and the tensors of the checkpoint that it is made of.

    Of one tensor it is the rows from `start` on, `part` being what they are; several are stacked.
    """

    name: str
    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    sources: tuple[str, ...]
    start: int = 0
    part: str = ""

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor in the file."""
        return int(np.prod(quant_shape_to_byte_shape(self.shape, self.kind)))


def plan(model: Path, config: Any, exported: Exported, kind: GGMLQuantizationType) -> list[Planned]:
    """Return the tensors of the file in its order. Raises UserError where llama.cpp has no place for one of the checkpoint."""
    names, family, shapes = _names(config, exported), family_of(config), checkpoint.tensor_shapes(model)
    planned: list[Planned] = []
    for name in checkpoint.unique_names(model, config):
        if name.endswith(BIAS) and not exported.biases:
            raise UserError(f"--to gguf: llama.cpp's {exported.architecture!r} has no biases, and the model has {name}")
        if family.is_expert(name.rpartition(".")[0]):
            planned += _of_all_experts(name, names, shapes, config, kind)
        else:
            planned += _in_parts(name, names, shapes[name], config, family, exported, kind)
    return planned


def _in_parts(
    name: str, names: TensorNameMap, shape: tuple[int, ...], config: Any, family: Family, exported: Exported, kind: GGMLQuantizationType
) -> Iterator[Planned]:
    """Yield what a tensor becomes: itself, or one tensor for each part of a fused layer."""
    parts, place = _parts(family, name), family.place(name)
    if len(parts) < 2 or not exported.split or place is None:
        part = parts[0] if len(parts) == 1 else ""
        chosen = GGMLQuantizationType.F32 if _only_weighs(family, name) else _kind_of(shape, kind)
        yield Planned(_name_in_file(names, name), shape, chosen, (name,), part=part)
        return
    start, ending = 0, name.rpartition(".")[2]
    for part, rows in zip(parts, _rows_of(parts, config), strict=True):
        own = (rows, *shape[1:])
        yield Planned(f"{TENSOR_NAMES[PARTS[part]].format(bid=place[0])}.{ending}", own, _kind_of(own, kind), (name,), start, part)
        start += rows


def _of_all_experts(
    name: str, names: TensorNameMap, shapes: dict[str, tuple[int, ...]], config: Any, kind: GGMLQuantizationType
) -> Iterator[Planned]:
    """Yield the tensor of all experts where `name` is the first one's, nothing where it is another's."""
    found = EXPERT_NUMBER.search(name)
    if found is None or found[1] != "0":
        return
    sources = tuple(EXPERT_NUMBER.sub(f".{number}", name) for number in range(config.num_experts))
    shape = (len(sources), *shapes[name])
    yield Planned(_name_in_file(names, EXPERT_NUMBER.sub("", name)), shape, _kind_of(shape, kind), sources)


def _rows_of(parts: tuple[str, ...], config: Any) -> list[int]:
    """Return how many rows each part of a fused layer has."""
    size = head_size(config)
    rows = {"query": config.num_attention_heads * size, "gate": config.intermediate_size, "up": config.intermediate_size}
    return [rows.get(part, config.num_key_value_heads * size) for part in parts]


def _names(config: Any, exported: Exported) -> TensorNameMap:
    architecture = next(key for key, name in MODEL_ARCH_NAMES.items() if name == exported.architecture)
    return get_tensor_name_map(architecture, config.num_hidden_layers)


def _name_in_file(names: TensorNameMap, name: str) -> str:
    found = names.get_name(name, try_suffixes=(".weight", BIAS))
    if found is None:
        raise UserError(f"--to gguf: llama.cpp has no place for the tensor {name}; a GGUF file without it would compute something else")
    return found


def _kind_of(shape: tuple[int, ...], kind: GGMLQuantizationType) -> GGMLQuantizationType:
    """Return the type that a tensor is stored in: vectors in f32, as llama.cpp computes with them."""
    if len(shape) < 2:
        return GGMLQuantizationType.F32
    return kind if shape[-1] % GGML_QUANT_SIZES[kind][0] == 0 else FALLBACK


def _readers(family: Family, name: str) -> list[Any]:
    place = family.place(name.rpartition(".")[0])
    return [reader for block in family.blocks for reader in block.readers if place is not None and reader.name == place[1]]


def _parts(family: Family, name: str) -> tuple[str, ...]:
    """Return what the rows of a reader's tensor are; nothing of any other tensor."""
    found = _readers(family, name)
    return tuple(found[0].parts) if found else ()


def _only_weighs(family: Family, name: str) -> bool:
    """Return whether a tensor is a router, which llama.cpp has in f32."""
    return any(not reader.adapted for reader in _readers(family, name))
