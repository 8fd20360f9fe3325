"""`pat validate` and `pat explain`: handed to the command `study`, which alone knows experiments. Nothing of it is imported here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from pat.errors import UserError

CHECKOUT = Path(__file__).resolve().parents[1] / "workflow"
"""Where the study lies beside a library that is not installed apart from it."""


class HandedOver(SystemExit):
    """The end of a verb that another process has run, which has said all there is to say."""


def hand_over(verb: str, arguments: Sequence[str]) -> NoReturn:
    """Run a verb of the study in a process of its own, and end as it ends. Raises UserError where there is no study."""
    beside = [str(CHECKOUT)] if (CHECKOUT / "study").is_dir() else []
    if not beside and find_spec("study") is None:
        raise UserError(
            f"pat {verb}: reads experiments, which the workflow's command `study {verb}` does, and the workflow is not here; "
            "call it in a checkout of the project"
        )
    path = os.pathsep.join([*beside, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, **({"PYTHONPATH": path} if path else {})}
    before = signal.signal(signal.SIGINT, lambda *_: None)  # the other process has Ctrl-C too, and says so
    try:
        finished = subprocess.run([sys.executable, "-m", "study", verb, *arguments], env=environment, check=False)
    finally:
        signal.signal(signal.SIGINT, before)
    raise HandedOver(finished.returncode)
