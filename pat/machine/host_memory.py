"""How much memory this machine has for a process: what is built in, or what its control group lets it have."""

from __future__ import annotations

import os
from pathlib import Path

GROUP_OF_PROCESS = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")


def host_bytes() -> int:
    """Return the bytes that a process can have at most, whatever others have of them."""
    return min([os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *_limits()])


def _limits() -> list[int]:
    """Return the limits of the control groups around this process, where it is in one of the second version: a job's, a container's."""
    try:
        [path] = [line.partition("::")[2] for line in GROUP_OF_PROCESS.read_text().splitlines() if line.startswith("0::")]
        group = GROUPS / path.strip("/")
        said = [file.read_text().strip() for file in (folder / "memory.max" for folder in (group, *group.parents)) if file.is_file()]
    except (OSError, ValueError):
        return []
    return [int(limit) for limit in said if limit.isdigit()]
