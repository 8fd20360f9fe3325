"""Python reads this when it starts, in a run whose jobs are to be forks: it hands the commands of the project over to the server."""

from __future__ import annotations

import os
import sys

FORKED = ("pat", "study")
first, second = (*sys.orig_argv, "", "")[1:3]
if (server := os.environ.get("PAT_TESTS_FORKS")) and (second if first == "-m" else os.path.basename(first)) in FORKED:  # noqa: PTH119
    from asking import run_forked  # type: ignore[import-not-found]  # this folder is on the path

    os._exit(run_forked(server, sys.orig_argv[1:], os.getcwd(), os.environ, (0, 1, 2)) % 256)  # noqa: PTH109
