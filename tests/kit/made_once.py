"""What takes long to make and all test processes of a run need: the first that asks makes it, the others wait and take a copy."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

ONE_OF_SEVERAL = "PYTEST_XDIST_WORKER"
"""The variable that tells a process of the tests that there are others; their folders lie beside its own."""


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """Return a folder of this process with what `make` writes into the folder that it is given."""
    own = factory.mktemp(name) / name
    if ONE_OF_SEVERAL not in os.environ:
        make(own)
        return own
    return made_or_copied(own, factory.getbasetemp().parent / f"shared-{name}", make)


def made_or_copied(own: Path, shared: Path, make: Callable[[Path], None]) -> Path:
    """Fill `own`: the first process leaves a copy at `shared` for the others. One that fails leaves nothing, so that each says what was wrong."""
    with shared.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # free again when the file is closed, however this ends
        if not shared.exists():
            make(own)
            shutil.copytree(own, shared.with_suffix(".half"), symlinks=True).rename(shared)
            return own
    return Path(shutil.copytree(shared, own, symlinks=True))
