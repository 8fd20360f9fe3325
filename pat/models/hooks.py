"""Hooks that a model's modules have for a while."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch.utils.hooks import RemovableHandle


@contextmanager
def removed_behind(hooks: Iterable[RemovableHandle]) -> Iterator[None]:
    """Keep hooks while open. They hold what their functions hold, so that one left behind would also keep a model in memory."""
    kept = list(hooks)
    try:
        yield
    finally:
        for hook in kept:
            hook.remove()
