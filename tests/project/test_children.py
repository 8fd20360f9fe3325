"""The tests' own processes: Ctrl-C reaches them wherever the tests run, and waiting for them ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.children import HANGS_AFTER_S, child, wait_for

SLEEPS = f"import pathlib, sys, time; pathlib.Path(sys.argv[1]).touch(); [time.sleep(0.05) for _ in range({HANGS_AFTER_S * 20})]"
"""Short sleeps: a signal that comes just before a sleep begins is looked at when that ends, and of one sleep the test would see the end."""


@pytest.mark.parametrize("inherited", [signal.SIG_IGN, signal.default_int_handler], ids=["ignored", "handled"])
def test_ctrl_c_reaches_a_child_whatever_the_tests_inherited(inherited: signal._HANDLER, tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, inherited)
    try:
        with child([sys.executable, "-c", SLEEPS, str(tmp_path / "ready")], stderr=subprocess.PIPE) as process:
            wait_for((tmp_path / "ready").exists, process)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=HANGS_AFTER_S)
        assert signal.getsignal(signal.SIGINT) is inherited
    finally:
        signal.signal(signal.SIGINT, before)
    assert "KeyboardInterrupt" in said and process.returncode != 0


def test_waiting_ends_with_the_time_or_the_process(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="in vain"), child([sys.executable, "-c", SLEEPS, str(tmp_path / "ready")]) as process:
        wait_for(lambda: False, process, within_s=0.1)
    assert process.returncode == -signal.SIGKILL
    with pytest.raises(AssertionError, match="too early"), child([sys.executable, "-c", ""]) as process:
        wait_for(lambda: False, process)
