"""The stream of a whole text in host memory, of which a model's device is given one batch of rows at a time.

The text grows with the model that it is fitted to: on a GPU the stream of all its tokens can need more room than the model itself.
Axes: B rows of a batch, T tokens, D channels.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


class HeldStream:
    """A tensor (B, T, D) a batch, held on the CPU, handed out on `device`; where that is the CPU itself nothing is copied for it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._held: list[Tensor] = []

    def __len__(self) -> int:
        """Return how many batches there are."""
        return len(self._held)

    def __getitem__(self, batch: int) -> Tensor:
        return self._held[batch].to(self.device, non_blocking=True)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[batch] for batch in range(len(self)))

    def put(self, batch: int, stream_BTD: Tensor) -> None:
        """Copy a batch's stream into the place of its former one, or behind the others as the next."""
        if batch == len(self):
            pinned = self.device.type == "cuda"  # a GPU reads such memory at the full rate of its bus
            self._held.append(torch.empty(stream_BTD.shape, dtype=stream_BTD.dtype, pin_memory=pinned))
        self._held[batch].copy_(stream_BTD)
