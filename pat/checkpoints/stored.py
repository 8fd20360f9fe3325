"""What a checkpoint folder holds, from the headers of its files alone: names, dtypes, shapes and places of tensors. No torch, no reading.

Owns the listing of a checkpoint's shards. Reading tensors is checkpoint.py's.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from pat.errors import UserError
from pat.io.artefacts import read_record
from pat.io.storage import refusal

WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
LENGTH_BYTES = 8
"""A safetensors file begins with the length of its header."""
LARGEST_HEADER_BYTES = 100 * 2**20
"""The format's own bound."""
COMPARED_AT_ONCE = 2**20
PICKLES = (".bin", ".pt", ".pth")


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file: dtype as safetensors names it, shape, and the bytes from `start` to `end`."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def shard_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a checkpoint in name order.

    Raises UserError where there are none, one is missing, or which they are cannot be told.
    """
    names = _listed_shards(folder / INDEX_NAME) if (folder / INDEX_NAME).exists() else [WEIGHTS_NAME]
    if names != [WEIGHTS_NAME] and (folder / WEIGHTS_NAME).exists():
        raise UserError(
            f"{folder}: holds {WEIGHTS_NAME} and beside it {INDEX_NAME} of other files; transformers reads the one, other software the "
            "other: remove what is older"
        )
    for name in names:
        if not (folder / name).is_file():
            raise UserError(f"{folder / name}: no such file{_hint(folder)}")
    return [folder / name for name in names]


def _hint(folder: Path) -> str:
    """Return what to say of weights in another form that lie where safetensors should."""
    if (folder / "adapter_config.json").is_file():
        return "; the folder holds an adapter, not a model: `pat merge` makes a model of it and its base"
    suffixes = {path.suffix for path in folder.iterdir()}
    if ".gguf" in suffixes:
        return "; its .gguf file is of another format: `pat import-model` makes a checkpoint of it"
    if found := sorted(suffixes.intersection(PICKLES)):
        return f"; its {found[0]} files are pickles, which are never loaded: convert them first"
    return ""


def _listed_shards(index: Path) -> list[str]:
    """Return the files that an index names. Raises UserError where it names none, or something that is no file of its folder."""
    weight_map = read_record(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(name, str) for name in weight_map.values()):
        raise UserError(f"{index}: has no `weight_map` from tensors to files")
    for name in weight_map.values():
        if not name or Path(name).name != name:
            raise UserError(f"{index}: names {name!r}, which is not a file of {index.parent}")
    return sorted(set(weight_map.values()))


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Return every tensor of a checkpoint by name. Raises UserError on a broken or truncated file."""
    return {name: tensor for path in shard_files(folder) for name, tensor in _in_file(path).items()}


def _in_file(path: Path) -> dict[str, StoredTensor]:
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(LENGTH_BYTES), "little")
            size = path.stat().st_size
            if not 0 < length <= min(size - LENGTH_BYTES, LARGEST_HEADER_BYTES):
                raise ValueError("its header is longer than the file, or empty")
            header = json.loads(stream.read(length))
            return {name: _parsed(path, entry, LENGTH_BYTES + length, size) for name, entry in header.items() if name != "__metadata__"}
    except OSError as error:
        raise refusal(error, path) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: is not a readable safetensors file ({error})") from None


def _parsed(path: Path, entry: dict[str, object], data_start: int, size: int) -> StoredTensor:
    """Return one entry of a header. Raises ValueError, KeyError or TypeError where it is none, or the file ends before it."""
    offsets, shape, dtype = entry["data_offsets"], entry["shape"], entry["dtype"]
    if not (isinstance(offsets, list) and isinstance(shape, list) and isinstance(dtype, str)):
        raise TypeError("an entry of its header has no dtype, shape and place")
    start, end = (data_start + int(offset) for offset in offsets)
    if not data_start <= start <= end <= size:
        raise ValueError("truncated: it ends before its last tensor")
    return StoredTensor(path, dtype, tuple(int(length) for length in shape), start, end)


def count(tensor: StoredTensor) -> int:
    """Return how many elements a tensor has."""
    return math.prod(tensor.shape)


def hold_the_same(one: StoredTensor, other: StoredTensor) -> bool:
    """Return whether two tensors are equal byte for byte; the first difference ends the reading."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    with one.path.open("rb") as first, other.path.open("rb") as second:
        first.seek(one.start)
        second.seek(other.start)
        left = one.end - one.start
        while left:
            part = min(left, COMPARED_AT_ONCE)
            if first.read(part) != second.read(part):
                return False
            left -= part
    return True
