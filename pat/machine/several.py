"""Starts a command as several processes of one job, as torchrun does on one machine: python -m pat.machine.several COUNT pat tune …

torchrun ends with its own traceback whatever ended the processes, Ctrl-C included. Here what they said stays the last word; one that was
killed and could say nothing is reported in one line.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

OF_THE_LAUNCHER = "torch.distributed.elastic"
ON_THIS_MACHINE = ("--standalone", "--local-addr", "127.0.0.1")
"""Without an address the processes meet at the machine's own name, and wait in vain for minutes where nobody can resolve it."""
USAGE = "usage: python -m pat.machine.several COUNT COMMAND …"


def main(arguments: Sequence[str]) -> None:
    """Run the command; the status is that of the first process that failed, 128 and the signal's number where one ended it."""
    count, *command = arguments or [""]
    if not (count.isascii() and count.isdigit() and int(count) > 0 and command):
        sys.exit(USAGE)
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as torchrun would, which it then says at length
    for name in [name for name in logging.root.manager.loggerDict if name.startswith(OF_THE_LAUNCHER)]:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        # The two dashes keep torchrun from reading the options behind them; it would fill in what a dollar names.
        torchrun([*ON_THIS_MACHINE, "--nproc-per-node", count, "--no-python", "--", *(word.replace("$", "$$") for word in command)])
    except SignalException as ended:
        sys.exit(128 + ended.sigval)
    except ChildFailedError as failed:
        _end(failed)


def _end(failed: ChildFailedError) -> NoReturn:
    rank, failure = failed.get_first_failure()
    if failure.exitcode < 0:
        sys.stderr.write(f"error: process {rank} of the job was ended by {signal.Signals(-failure.exitcode).name}\n")
        sys.exit(128 - failure.exitcode)
    sys.exit(failure.exitcode)


if __name__ == "__main__":
    main(sys.argv[1:])
