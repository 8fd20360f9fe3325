"""Python reads this when it starts, in a run whose jobs are to be forks: it hands the commands of the project over to the server.

Where a folder is named for it, the first command of each verb starts by itself all the same: no other's imports hide one that it lacks.
"""

from __future__ import annotations

import os
import sys

FORKED = ("pat", "study", "tests.kit.sharded_tunings")


def is_first(verb: str, folder: str) -> bool:
    """Return whether no command of this verb has asked before."""
    try:
        os.close(os.open(os.path.join(folder, verb), os.O_CREAT | os.O_EXCL))  # noqa: PTH118
    except FileExistsError:
        return False
    return True


words = sys.orig_argv[2:] if sys.orig_argv[1:2] == ["-u"] else sys.orig_argv[1:]  # as launchers start others
program, verb = (*words[1:], "", "")[:2] if words[:1] == ["-m"] else (os.path.basename((*words, "")[0]), (*words, "", "")[1])  # noqa: PTH119
server, noted = (os.environ.get(name) for name in ("PAT_TESTS_FORKS", "PAT_TESTS_FIRST"))
if server and program in FORKED and not (noted and is_first(verb, noted)):
    from asking import run_forked  # type: ignore[import-not-found]  # this folder is on the path

    os._exit(run_forked(server, words, os.getcwd(), os.environ, (0, 1, 2)) % 256)  # noqa: PTH109
