"""Hooks that a model's modules have for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from torch import Tensor, nn
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
    """Return the stream that a decoder layer or a norm is called with, by place or by name: what a hook with keywords is told."""
    stream: Tensor = inputs[0] if inputs else keywords["hidden_states"]
    return stream


class _ReachedError(Exception):
    """No error: it ends a forward pass of which the rest is not needed."""


def stream_before(module: nn.Module, run: Callable[[], object]) -> Tensor:
    """Return the stream that a module is called with when `run` calls it first. What would come behind is not computed."""
    found: list[Tensor] = []

    def stop(_module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        found.append(given_stream(inputs, keywords))
        raise _ReachedError

    with removed_behind([module.register_forward_pre_hook(stop, with_kwargs=True)]), suppress(_ReachedError):
        run()
    [stream] = found
    return stream
