"""A process that has imported the libraries of others, which take most of the time of a short command, and runs each command in a fork.

    python tests/kit/forks/server.py NAME LIBRARIES                until its standard input ends
    python tests/kit/forks/server.py NAME LIBRARIES COMMAND …      until the command ends, with its status

It is a script, and nothing of the project is imported before a fork: each command imports its own. NAME is that of an abstract socket,
LIBRARIES are modules, with commas between them.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import select
import socket
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

POLL_S = 0.01
BYTES = 2**16
STANDARD = 3
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
"""As the workflow's jobs have it; libraries look once, when they are imported."""


def main(name: str, libraries: str, command: list[str]) -> int:
    """Answer requests as long as the process should live and return its status; a fork returns when it has become its command."""
    own = dict(os.environ)
    os.environ |= OFFLINE
    gc.disable()  # what is imported stays
    for library in libraries.split(","):
        import_module(library)
    gc.collect()
    gc.freeze()  # what no fork looks through for garbage is not copied for it
    gc.enable()
    with socket.socket(socket.AF_UNIX) as asked:
        asked.bind(f"\0{name}")
        asked.listen()
        print(flush=True)  # noqa: T201 - who has started this may ask from now on
        run = subprocess.Popen(command, env=own) if command else None
        under_way: dict[int, socket.socket] = {}
        while run is None or run.poll() is None:
            ready = select.select([asked] if run else [asked, sys.stdin], [], [], POLL_S)[0]
            if sys.stdin in ready:
                return 0
            if asked in ready:
                connection = asked.accept()[0]
                content, files, *_ = socket.recv_fds(connection, BYTES, STANDARD)
                while not content.endswith(b"\n"):
                    content += connection.recv(BYTES)
                if (process := os.fork()) == 0:
                    become(json.loads(content), files)
                    return 0
                under_way[process] = connection
                for file in files:
                    os.close(file)
            for process in list(under_way):
                ended, status = os.waitpid(process, os.WNOHANG)
                if ended:
                    with under_way.pop(process) as connection:
                        connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())
        return run.returncode


def become(request: dict[str, Any], files: list[int]) -> None:
    """Run a script, or with -m a module, as Python does, where the request says, with its environment and files; then end as that would."""
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ |= request["environment"]
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    first, *rest = request["command"]
    sys.argv = rest if first == "-m" else [first, *rest]
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:1] = [request["folder"] if first == "-m" else str(Path(first).parent), *filter(None, given)]
    if first == "-m":
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    own_name, its_libraries, *to_run = sys.argv[1:]
    sys.exit(main(own_name, its_libraries, to_run))
