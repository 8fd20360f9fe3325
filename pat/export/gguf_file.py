"""A GGUF file of a checkpoint, written tensor by tensor with the `gguf` package.

Rows that a type's blocks do not divide are stored in f16, as llama.cpp's own converter does; how many is reported.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import (
    GGML_QUANT_SIZES,
    GGML_QUANT_VERSION,
    MODEL_ARCH_NAMES,
    MODEL_TENSOR,
    TENSOR_NAMES,
    GGMLQuantizationType,
    GGUFWriter,
    LlamaFileType,
    TensorNameMap,
    get_tensor_name_map,
    quant_shape_to_byte_shape,
    quantize,
)
from numpy.typing import NDArray

from pat.checkpoints import checkpoint
from pat.checkpoints.base_checks import check_base
from pat.errors import UserError
from pat.export.gguf_families import Exported, add_sizes, exported_as, frequency_divisors, in_pairs
from pat.export.gguf_tokenizer import add_tokenizer
from pat.families.known import Family, Role, attention_window, family_of, head_size
from pat.io.progress import Progress
from pat.settings.formats import BLOCK_TYPES, K_BLOCK, PLAIN_TYPES

TYPES = (*PLAIN_TYPES, *BLOCK_TYPES)
AUTO = "auto"
FILE_TYPES = {
    "f32": LlamaFileType.ALL_F32,
    "f16": LlamaFileType.MOSTLY_F16,
    "bf16": LlamaFileType.MOSTLY_BF16,
    "q8_0": LlamaFileType.MOSTLY_Q8_0,
    "q5_1": LlamaFileType.MOSTLY_Q5_1,
    "q5_0": LlamaFileType.MOSTLY_Q5_0,
    "q4_1": LlamaFileType.MOSTLY_Q4_1,
    "q4_0": LlamaFileType.MOSTLY_Q4_0,
}
AS_STORED = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}
FALLBACK = GGMLQuantizationType.F16
ROPE_DIVISORS = "rope_freqs.weight"
BIAS = ".bias"
PARTS = {
    "query": MODEL_TENSOR.ATTN_Q,
    "key": MODEL_TENSOR.ATTN_K,
    "value": MODEL_TENSOR.ATTN_V,
    "gate": MODEL_TENSOR.FFN_GATE,
    "up": MODEL_TENSOR.FFN_UP,
}
GAINS = (Role.NORM, Role.NORM_BEHIND, Role.FINAL_NORM, Role.INSIDE)

logger = logging.getLogger(__name__)
logging.getLogger("gguf").setLevel(logging.WARNING)  # else it names a temporary file for every file that is written


@dataclass(frozen=True)
class Planned:
    """One tensor of the file: its name there, its shape, and the type it is stored in."""

    name: str
    shape: tuple[int, ...]
    kind: GGMLQuantizationType

    @property
    def nbytes(self) -> int:
        return int(np.prod(quant_shape_to_byte_shape(self.shape, self.kind)))


def write_gguf(model: Path, file: Path, kind: str = AUTO, split: str | None = None) -> dict[str, Any]:
    """Write the model of a folder to a GGUF file and return what came of it: type, split, tensors by type, rows that did not fit.

    `kind` is one of TYPES, or "auto": as the weights are stored. Raises UserError where the folder is none of a whole stock model with a
    tokenizer, and where llama.cpp would compute something else.
    """
    kind = _checked_type(kind)
    check_base(model, tokenizer=True)
    checkpoint.check_opens(model)
    config = checkpoint.load_config(model)
    exported = exported_as(config)
    tokenizer = checkpoint.open_tokenizer(model)
    if kind == AUTO:
        kind = AS_STORED[checkpoint.dtype_of(model)]
    if (window := attention_window(config)) is not None and not exported.window and window < config.max_position_embeddings:
        logger.warning("llama.cpp has no sliding window in such a model, so the file says a context of %d tokens, one window", window)
    planned = _plan(model, config, exported, GGMLQuantizationType[kind.upper()])
    writer = GGUFWriter(file, exported.architecture)
    try:
        writer.add_name(model.resolve().name)
        writer.add_file_type(FILE_TYPES[kind])
        writer.add_quantization_version(GGML_QUANT_VERSION)
        add_sizes(writer, config, exported)
        split = add_tokenizer(writer, model, tokenizer, config, split)
        _write(writer, model, config, exported, planned)
    finally:
        writer.close()
    _flush(file)
    written = list(chain.from_iterable(planned.values()))
    matrices = [each for each in written if len(each.shape) > 1]
    return {
        "type": kind,
        "tokenizer_split": split,
        "formats": dict(sorted(Counter(each.kind.name for each in written).items())),
        "matrices": len(matrices),
        "left_in_f16": [each.name for each in matrices if each.kind.name.lower() != kind],
    }


def _checked_type(kind: str) -> str:
    if kind.lower() in (AUTO, *TYPES):
        return kind.lower()
    raise UserError(
        f"--type {kind!r}: must be {AUTO}, {', '.join(TYPES)}; others are made by llama.cpp's own tool of an f16 or bf16 file: "
        f"llama-quantize model-bf16.gguf model.gguf {kind} (its k-quants need rows of {K_BLOCK}: --align gguf)"
    )


def _plan(model: Path, config: Any, exported: Exported, kind: GGMLQuantizationType) -> dict[str, list[Planned]]:
    """Return what becomes of each of a checkpoint's tensors, by its name, in the order of the file."""
    names, family, shapes = _names(config, exported), family_of(config), checkpoint.tensor_shapes(model)
    planned: dict[str, list[Planned]] = {}
    for name in checkpoint.unique_names(model, config):
        if name.endswith(BIAS) and not exported.biases:
            raise UserError(f"--to gguf: llama.cpp's {exported.architecture!r} has no biases, and the model has {name}")
        parts = _parts(family, name) if exported.split else ()
        if len(parts) < 2:
            planned[name] = [Planned(_name_in_file(names, name), shapes[name], _kind_of(shapes[name], kind))]
            continue
        layer, ending = _layer(family, name), name.rpartition(".")[2]
        planned[name] = [
            Planned(f"{TENSOR_NAMES[PARTS[part]].format(bid=layer)}.{ending}", shape, _kind_of(shape, kind))
            for part, rows in zip(parts, _rows_of(parts, config), strict=True)
            for shape in [(rows, *shapes[name][1:])]
        ]
    return planned


def _rows_of(parts: tuple[str, ...], config: Any) -> list[int]:
    """Return how many rows each part of a fused layer has."""
    size = head_size(config)
    rows = {"query": config.num_attention_heads * size, "gate": config.intermediate_size, "up": config.intermediate_size}
    return [rows.get(part, config.num_key_value_heads * size) for part in parts]


def _names(config: Any, exported: Exported) -> TensorNameMap:
    architecture = next(key for key, name in MODEL_ARCH_NAMES.items() if name == exported.architecture)
    return get_tensor_name_map(architecture, config.num_hidden_layers)


def _name_in_file(names: TensorNameMap, name: str) -> str:
    found = names.get_name(name, try_suffixes=(".weight", ".bias"))
    if found is None:
        raise UserError(f"--to gguf: llama.cpp has no place for the tensor {name}; a GGUF file without it would compute something else")
    return found


def _kind_of(shape: tuple[int, ...], kind: GGMLQuantizationType) -> GGMLQuantizationType:
    """Return the type that a tensor is stored in: vectors in f32, as llama.cpp computes with them."""
    if len(shape) < 2:
        return GGMLQuantizationType.F32
    return kind if shape[-1] % GGML_QUANT_SIZES[kind][0] == 0 else FALLBACK


def _write(writer: GGUFWriter, model: Path, config: Any, exported: Exported, planned: dict[str, list[Planned]]) -> None:
    divisors = frequency_divisors(config)
    if divisors is not None:
        writer.add_tensor_info(ROPE_DIVISORS, divisors.shape, divisors.dtype, divisors.nbytes)
    for each in chain.from_iterable(planned.values()):
        writer.add_tensor_info(each.name, each.shape, np.dtype(np.float32), each.nbytes, raw_dtype=each.kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    if divisors is not None:
        writer.write_tensor_data(divisors)
    for values in _values(model, config, exported, planned):
        writer.write_tensor_data(values)


def _values(model: Path, config: Any, exported: Exported, planned: dict[str, list[Planned]]) -> Iterator[NDArray[Any]]:
    """Yield the tensors as the file holds them, one at a time, in its order."""
    family = family_of(config)
    progress = Progress("export", len(planned))
    for done, (name, tensor) in enumerate(checkpoint.unique_tensors(model, config), start=1):
        start = 0
        parts = _parts(family, name)
        for place, each in enumerate(planned[name]):
            rows = tensor[start : start + each.shape[0]].float().numpy()
            start += each.shape[0]
            if exported.pairs and (part := parts[place] if parts else "") in ("query", "key"):
                rows = in_pairs(rows, config.num_attention_heads if part == "query" else config.num_key_value_heads)
            if family.gain_offset and family.role(name) in GAINS:
                rows = rows + np.float32(family.gain_offset)
            yield _stored(model, name, rows, each.kind)
        progress.update(done)


def _stored(model: Path, name: str, rows: NDArray[np.float32], kind: GGMLQuantizationType) -> NDArray[Any]:
    if kind == GGMLQuantizationType.F16 and np.abs(rows).max(initial=0) > np.finfo(np.float16).max:
        raise UserError(f"{model}: {name} holds numbers beyond f16's range; give --type bf16")
    stored: NDArray[Any] = quantize(np.ascontiguousarray(rows), kind)
    return stored


def _parts(family: Family, name: str) -> tuple[str, ...]:
    """Return what the rows of a reader's tensor are; nothing of any other tensor."""
    place = family.place(name.rpartition(".")[0])
    readers = [reader for block in family.blocks for reader in block.readers if place is not None and reader.name == place[1]]
    return readers[0].parts if readers else ()


def _layer(family: Family, name: str) -> int:
    place = family.place(name)
    assert place is not None
    return place[0]


def _flush(file: Path) -> None:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
