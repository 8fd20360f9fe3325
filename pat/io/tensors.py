"""Safetensors files, opened so that a broken one is one message that names it."""

from __future__ import annotations

from collections.abc import Iterator
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


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return all tensors of a small file. Raises UserError as `opened` does."""
    with opened(path) as shard:
        return {name: shard.get_tensor(name) for name in shard.keys()}  # noqa: SIM118 - not a mapping
