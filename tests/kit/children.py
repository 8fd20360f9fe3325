"""Processes that a test starts and disturbs while they run: waited for within bounds, and none outlives its test."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

READY_WITHIN_S = 300
"""What these tests wait for comes within seconds; a busy machine may need minutes."""


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


def wait_for(condition: Callable[[], object], process: subprocess.Popen[Any], within_s: float = READY_WITHIN_S) -> None:
    """Wait until the condition holds while the process runs. Fails where that ends before, or the time does."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert process.poll() is None, "ended too early"
        assert time.monotonic() < deadline, f"waited {within_s:.0f} s in vain"
        time.sleep(0.02)
