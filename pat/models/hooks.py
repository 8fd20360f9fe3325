"""Hooks that a model's modules have for a while."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor
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


def given_stream(inputs: tuple[Any, ...], keywords: Mapping[str, Any]) -> Tensor:
    """Return the stream that a decoder layer is called with, by place or by name: what a hook with keywords is told."""
    stream: Tensor = inputs[0] if inputs else keywords["hidden_states"]
    return stream
