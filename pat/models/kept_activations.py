"""How many bytes a forward pass keeps for backward: what a tuning's memory is mostly made of, counted and not timed.

It is the same on every device and counts what torch's functions save, each piece of memory once; what only lives for a moment is not in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


def kept_bytes(forward: Callable[[], object], but_for: Iterable[Tensor] = ()) -> int:
    """Return the bytes of the tensors that `forward` keeps for backward, without those of `but_for`: parameters, which are there anyway."""
    there = {tensor.untyped_storage().data_ptr() for tensor in but_for}
    kept: dict[int, Tensor] = {}  # holds them: memory that is let go and given out again would be taken for the same

    def note(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in there:
            kept.setdefault(place, tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, _as_it_is):
        forward()
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor
