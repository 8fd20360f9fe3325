"""What a training took: a job that was killed and called again counts what went into the checkpoint that it goes on from."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from pat.io import artefacts
from pat.machine.device import peak_memory_gib

SPENT_RECORD = "spent.json"


class Spent:
    """Seconds and the most memory, from here on and before the checkpoint that is gone on from; lost work behind that is not counted."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._wall_s = self._peak_memory_gib = 0.0

    def go_on_from(self, checkpoint: Path) -> None:
        """Add what a sealed checkpoint says was spent on it; those of an earlier version say nothing."""
        if not (checkpoint / SPENT_RECORD).exists():
            return
        found = artefacts.read_json(checkpoint / SPENT_RECORD)
        self._wall_s, self._peak_memory_gib = float(found["wall_s"]), float(found["peak_memory_gib"])

    def so_far(self) -> dict[str, Any]:
        """Return what a record says of it: `wall_s` and `peak_memory_gib`."""
        return {
            "wall_s": self._wall_s + time.monotonic() - self._started,
            "peak_memory_gib": max(self._peak_memory_gib, peak_memory_gib()),
        }

    def write(self, checkpoint: Path) -> None:
        """Leave it in a checkpoint that is about to be sealed."""
        artefacts.write_json(checkpoint / SPENT_RECORD, self.so_far())
