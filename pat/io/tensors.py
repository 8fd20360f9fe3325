"""Safetensors files, opened so that a broken one is one message that names it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from pat.errors import UserError
from pat.io.storage import refusal


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Yield the open file, whose tensors are read one at a time. Raises UserError where it cannot be read or is broken."""
    try:
        with safe_open(path, framework="pt") as shard:
            yield shard
    except OSError as error:
        raise refusal(error, path) from None
    except SafetensorError as error:
        raise UserError(f"{path}: is not a readable safetensors file ({error})") from None


def check_numbers(tensors: Mapping[str, Tensor], source: str) -> None:
    """Raise UserError where a tensor of trained numbers is none of floating-point numbers, or holds NaN or infinity."""
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            stored = str(tensor.dtype).removeprefix("torch.")
            raise UserError(f"{source}: the tensor {name} is stored as {stored}, where floating-point numbers are needed; make it again")
        if not bool(tensor.isfinite().all()):
            raise UserError(f"{source}: the tensor {name} holds NaN or infinity; make it again")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return all tensors of a small file. Raises UserError as `opened` does."""
    with opened(path) as shard:
        return {name: shard.get_tensor(name) for name in shard.keys()}  # noqa: SIM118 - not a mapping
