"""A checkpoint with its linear layers in int8, int4 or fp8, as vLLM and transformers open it: compressed-tensors' format.

Each weight is rounded to the nearest step between its own extremes; no text is read. The steps, the rounding and the packing are the
compressed-tensors package's. Embedding, head and norms stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from compressed_tensors import __version__ as package_version
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.config import CompressionFormat
from compressed_tensors.quantization import (
    QuantizationArgs,
    QuantizationConfig,
    QuantizationScheme,
    QuantizationStatus,
    preset_name_to_scheme,
)
from compressed_tensors.quantization.utils import calculate_qparams
from torch import Tensor

from pat.checkpoints import checkpoint
from pat.checkpoints.rope_fields import write_both_ways
from pat.errors import UserError
from pat.families.known import Family, Role, family_of
from pat.io.artefacts import read_record, write_json
from pat.io.progress import Progress

SCHEMES = {"int8": "W8A8", "int4": "W4A16", "fp8": "FP8_DYNAMIC"}
"""compressed-tensors' names: 8 bits for weights and activations, which are scaled token by token, or 4 bits for weights alone."""
FORMATS = {
    "int8": CompressionFormat.int_quantized,
    "int4": CompressionFormat.pack_quantized,
    "fp8": CompressionFormat.float_quantized,
}
GROUPS = (128, 64, 32)
"""How many neighbours of a row share a step in int4: the first that divides all rows. Runtimes have kernels for these."""
LINEARS = (Role.READ, Role.WRITE)


def write_compressed(model: Path, folder: Path, to: str) -> dict[str, Any]:
    """Write the model with its linear layers in the format `to` into `folder`; return the scheme, and the size of groups in int4.

    Raises UserError where the model has experts, or rows that no group divides.
    """
    checkpoint.check_opens(model)
    config = checkpoint.load_config(model)
    family = family_of(config)
    if family.has_experts:
        raise UserError(f"--to {to}: its experts are not linear layers to transformers, and are not compressed; --to gguf knows some")
    names = {name for name in checkpoint.unique_names(model, config) if name.endswith(".weight") and family.role(name) in LINEARS}
    scheme = preset_name_to_scheme(SCHEMES[to], ["Linear"])
    assert scheme.weights is not None
    group = None
    if to == "int4":
        group = _group(model, names)
        scheme.weights = scheme.weights.model_copy(update={"group_size": group})
    scheme.format = FORMATS[to]
    weights = _compressed(model, config, names, scheme)
    checkpoint.write_shards(folder, weights, checkpoint.weights_size(model))
    _write_config(model, folder, scheme, family)
    checkpoint.copy_companions(model, folder)
    return {"scheme": SCHEMES[to], "group_size": group, "compressed": len(names)}


def _group(model: Path, names: set[str]) -> int:
    """Return how many neighbours share a step. Raises UserError where a row is cut by all that runtimes know."""
    rows = {shape[-1] for name, shape in checkpoint.tensor_shapes(model).items() if name in names}
    for size in GROUPS:
        if all(row % size == 0 for row in rows):
            return size
    odd = ", ".join(str(row) for row in sorted(rows) if row % GROUPS[-1])
    raise UserError(
        f"--to int4: rows of {odd} are no multiple of {GROUPS[-1]}, the smallest group that runtimes have kernels for; int8 and fp8 take "
        "any rows, and a model that is pruned with --align 32 has rows that fit"
    )


def _compressed(model: Path, config: Any, names: set[str], scheme: QuantizationScheme) -> Iterator[tuple[str, Tensor]]:
    assert scheme.weights is not None and scheme.format is not None
    compressor: Any = BaseCompressor.get_value_from_registry(CompressionFormat(scheme.format).value)
    total = len(checkpoint.unique_names(model, config))
    progress = Progress("export", total)
    for done, (name, tensor) in enumerate(checkpoint.unique_tensors(model, config), start=1):
        if name in names:
            module = name.removesuffix("weight")
            parts: dict[str, Tensor] = compressor.compress(_with_steps(tensor, scheme.weights), scheme)
            yield from ((module + part, value.contiguous()) for part, value in parts.items())
        else:
            yield name, tensor
        progress.update(done)


def _with_steps(weight_NM: Tensor, weights: QuantizationArgs) -> dict[str, Tensor]:
    """Return a weight with the steps between its numbers, one a row or a group of neighbours in it, and their zero points."""
    groups = weight_NM.float().unflatten(-1, (-1, weights.group_size or weight_NM.shape[-1]))
    low, high = groups.aminmax(dim=-1)
    scale, zero = calculate_qparams(low, high, weights)
    return {"weight": weight_NM, "weight_scale": scale.to(weight_NM.dtype), "weight_zero_point": zero}


def _write_config(model: Path, folder: Path, scheme: QuantizationScheme, family: Family) -> None:
    """Write the model's config with what was done to its weights, as transformers and vLLM read it."""
    assert scheme.format is not None
    done = QuantizationConfig(
        config_groups={"group_0": scheme}, ignore=sorted({family.head, family.stored_head}), format=CompressionFormat(scheme.format).value,
        quantization_status=QuantizationStatus.COMPRESSED,
    )  # fmt: skip
    fields = done.model_dump(mode="json") | {"version": package_version}
    write_json(folder / "config.json", read_record(model / "config.json") | {"quantization_config": fields})
    write_both_ways(folder)
