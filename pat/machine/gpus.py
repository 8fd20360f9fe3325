"""Which GPU of a machine a job takes: jobs that run side by side spread over all of them.

A scheduler on one machine counts GPUs but hands none out, so the jobs agree among themselves, by locks that end with their processes.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

DEVICE_FILES = Path("/dev")
_held: list[int] = []
"""The descriptors of this process' locks, open as long as it lives."""


def visible() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; where it says nothing, all of the machine's."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    files = len(list(DEVICE_FILES.glob("nvidia[0-9]*")))
    return [str(place) for place in range(max(files, 1))]  # without such files there may still be one, as under WSL


def take_one(gpus: Sequence[str], folder: Path | None = None) -> str:
    """Return the GPU that the fewest living jobs of this user have taken, the first of several, and hold it until this process ends.

    `folder` is where the locks lie. Where there is nothing to choose from, or no lock can be had, that is the first one; "" without any.
    """
    if len(gpus) > 1:
        with suppress(OSError):
            return _locked(gpus, folder or Path(tempfile.gettempdir()) / f"pat-gpus-{os.getuid()}")
    return next(iter(gpus), "")


def _locked(gpus: Sequence[str], folder: Path) -> str:
    """Return the GPU of the first lock that is free; parts of a GPU (MIG) have names with slashes."""
    folder.mkdir(mode=0o700, exist_ok=True)
    for place in itertools.count():
        for gpu in gpus:
            descriptor = os.open(folder / f"{quote(gpu, safe='')}.{place}", os.O_CREAT | os.O_RDWR, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                continue
            _held.append(descriptor)
            return gpu
    raise AssertionError("places are counted without end")
