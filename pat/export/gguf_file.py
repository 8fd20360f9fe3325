"""A GGUF file of a checkpoint, written tensor by tensor with the `gguf` package.

Rows that a type's blocks do not divide are stored in f16, as llama.cpp's own converter does; how many is reported.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGML_QUANT_VERSION, GGMLQuantizationType, GGUFWriter, LlamaFileType, quantize
from numpy.typing import NDArray

from pat.checkpoints import checkpoint
from pat.checkpoints.base_checks import check_base
from pat.checkpoints.stored import StoredTensor, stored_tensors
from pat.errors import UserError
from pat.export.gguf_families import Exported, add_sizes, exported_as, frequency_divisors, in_pairs
from pat.export.gguf_plan import FALLBACK, Planned, plan
from pat.export.gguf_tokenizer import add_tokenizer
from pat.families.known import Role, attention_window, family_of
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
AS_STORED = {torch.float64: "f32", torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}  # llama.cpp computes in fp32 at most
ROPE_DIVISORS = "rope_freqs.weight"
GAINS = (Role.NORM, Role.NORM_BEHIND, Role.FINAL_NORM, Role.INSIDE)

logger = logging.getLogger(__name__)
logging.getLogger("gguf").setLevel(logging.WARNING)  # else it names a temporary file for every file that is written


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
    planned = plan(model, config, exported, GGMLQuantizationType[kind.upper()])
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
    matrices = [each for each in planned if len(each.shape) > 1]
    return {
        "type": kind,
        "tokenizer_split": split,
        "formats": dict(sorted(Counter(each.kind.name for each in planned).items())),
        "matrices": len(matrices),
        "left_in_f16": [each.name for each in matrices if each.kind == FALLBACK and kind in BLOCK_TYPES],
    }


def _checked_type(kind: str) -> str:
    if kind.lower() in (AUTO, *TYPES):
        return kind.lower()
    raise UserError(
        f"--type {kind!r}: must be {AUTO}, {', '.join(TYPES)}; others are made by llama.cpp's own tool of an f16 or bf16 file: "
        f"llama-quantize model-bf16.gguf model.gguf {kind} (its k-quants need rows of {K_BLOCK}: --align gguf)"
    )


def _write(writer: GGUFWriter, model: Path, config: Any, exported: Exported, planned: list[Planned]) -> None:
    divisors = frequency_divisors(config)
    if divisors is not None:
        writer.add_tensor_info(ROPE_DIVISORS, divisors.shape, divisors.dtype, divisors.nbytes)
    for each in planned:
        writer.add_tensor_info(each.name, each.shape, np.dtype(np.float32), each.nbytes, raw_dtype=each.kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    if divisors is not None:
        writer.write_tensor_data(divisors)
    stored, progress = stored_tensors(model), Progress("export", len(planned))
    for done, each in enumerate(planned, start=1):
        writer.write_tensor_data(_as_stored(model, each, _rows(each, stored, config, exported)))
        progress.update(done)


def _rows(each: Planned, stored: dict[str, StoredTensor], config: Any, exported: Exported) -> NDArray[np.float32]:
    """Return a tensor in fp32 with gains that multiply as they are, queries and keys in llama.cpp's order, and all experts in one."""
    family = family_of(config)
    read = [checkpoint.tensor_in(stored[name].path, name).float().numpy() for name in each.sources]
    if len(read) > 1:
        return np.stack(read)
    rows: NDArray[np.float32] = read[0][each.start : each.start + each.shape[0]]
    if exported.pairs and each.part in ("query", "key"):
        rows = in_pairs(rows, config.num_attention_heads if each.part == "query" else config.num_key_value_heads)
    if family.gain_offset and family.role(each.sources[0]) in GAINS:
        rows = rows + np.float32(family.gain_offset)
    return rows


def _as_stored(model: Path, each: Planned, rows: NDArray[np.float32]) -> NDArray[Any]:
    if each.kind == GGMLQuantizationType.F16 and np.abs(rows).max(initial=0) > np.finfo(np.float16).max:
        raise UserError(f"{model}: {each.sources[0]} holds numbers beyond f16's range; give --type bf16")
    stored: NDArray[Any] = quantize(np.ascontiguousarray(rows), each.kind)
    return stored


def _flush(file: Path) -> None:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
