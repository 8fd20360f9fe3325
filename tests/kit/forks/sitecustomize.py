"""Python reads this when it starts, in a run whose jobs are to be forks: it hands the commands of the project over to the server.

Where a folder is named for it, the first command of each verb starts by itself all the same: no other's imports hide one that it lacks.
"""

from __future__ import annotations

import os
import sys

FORKED = ("pat", "study")


def is_first(verb: str, folder: str) -> bool:
    """Return whether no command of this verb has asked before."""
    try:
        os.close(os.open(os.path.join(folder, verb), os.O_CREAT | os.O_EXCL))  # noqa: PTH118
    except FileExistsError:
        return False
    return True


words = (*sys.orig_argv[1:], "", "", "")
program, verb = words[1:3] if words[0] == "-m" else (os.path.basename(words[0]), words[1])  # noqa: PTH119
server, noted = (os.environ.get(name) for name in ("PAT_TESTS_FORKS", "PAT_TESTS_FIRST"))
if server and program in FORKED and not (noted and is_first(verb, noted)):
    from asking import run_forked  # type: ignore[import-not-found]  # this folder is on the path

    os._exit(run_forked(server, sys.orig_argv[1:], os.getcwd(), os.environ, (0, 1, 2)) % 256)  # noqa: PTH109
