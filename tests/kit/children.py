"""Processes that a test starts and disturbs while they run: waited for within bounds, and none outlives its test."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HANGS_AFTER_S = 3600
"""Longer than all that tests wait for takes on a machine twenty times as slow: no limit on speed, it only ends what hangs."""
NO_PROCESS = 2**22 + 1
"""Linux numbers processes up to 2²²."""
TRIES = 5
"""At meeting a process in the middle of what takes it a moment: a busy machine may look away just then."""


@contextmanager
def child(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Within this context a process runs, which Ctrl-C reaches as at a terminal; it is killed at the end if it still runs."""
    with _started(command, options) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def _started(command: Sequence[str], options: dict[str, Any]) -> subprocess.Popen[str]:
    # An ignored signal stays ignored in a child, as in what a shell starts in the background; a handled one is its default again there.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        return subprocess.Popen(command, text=True, **options)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(command, text=True, **options)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def wait_for(condition: Callable[[], object], process: subprocess.Popen[Any], within_s: float = HANGS_AFTER_S) -> None:
    """Wait until the condition holds while the process runs. Fails where that ends before, or the time does."""

    def holds() -> bool:
        ended = process.poll() is not None  # asked first: what it does at last may be what is waited for
        if condition():
            return True
        assert not ended, "ended too early"
        return False

    wait_until(holds, within_s)


def found_in(folder: Path, pattern: str) -> list[Path]:
    """Return what lies in a folder that another process is changing; nothing where what is looked through went meanwhile."""
    try:
        return list(folder.glob(pattern))
    except FileNotFoundError:  # Python 3.11 raises it
        return []


def wait_until(condition: Callable[[], object], within_s: float = HANGS_AFTER_S) -> None:
    """Wait until the condition holds. Fails where the time ends before."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {within_s:.0f} s in vain"
        time.sleep(0.02)
