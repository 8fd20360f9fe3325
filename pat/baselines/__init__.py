"""Pruners that work on a finished checkpoint. A new one is a module here and an entry in PRUNERS.

A pruner takes the source folder, the ratio and the alignment, writes a checkpoint into an empty folder and returns the record of
its sizes and of how far it is from the model it stands for.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pat.baselines.channel_magnitude import prune_by_magnitude

Pruner = Callable[[Path, float, int | Literal["auto"], Path], dict[str, Any]]

PRUNERS: dict[str, Pruner] = {"channel-magnitude": prune_by_magnitude}
