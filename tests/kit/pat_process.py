"""The command line of pat, run as a process."""

from __future__ import annotations

import subprocess
import sys

COMMAND = [sys.executable, "-m", "pat.cli"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False)
