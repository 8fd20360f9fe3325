"""Asks the server of forks for a command; imports next to nothing, for it is also what a forked job's own Python does."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping, Sequence


def run_forked(name: str, command: Sequence[str], folder: str, environment: Mapping[str, str], files: Sequence[int]) -> int:
    """Have a command run with these files as its standard ones and return its status, below 0 where a signal ended it."""
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(f"\0{name}")
        request = {"command": list(command), "folder": folder, "environment": dict(environment)}
        socket.send_fds(server, [f"{json.dumps(request)}\n".encode()], files)
        return int(server.recv(64).decode())
