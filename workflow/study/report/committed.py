"""Whether a record's code is its commit's: by git when it ran, or by the hash of its sources afterwards."""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pat.io.provenance import GIT_HANGS_AFTER_S, SOURCES, source_hash


def is_as_committed(origin: Mapping[str, Any]) -> bool:
    """Return whether what a provenance says of the code holds for its commit.

    A checkout that had changes elsewhere (in an experiment's file, say) names the hash of the package's sources: they are the commit's
    where the commit's have the same hash.
    """
    if not origin["git_dirty"]:
        return True
    noted = origin.get("source_hash")
    return noted is not None and noted == _hash_at(str(origin["git_commit"]), SOURCES)


@cache
def _hash_at(commit: str, sources: Path) -> str | None:
    """Return the hash of the sources in a folder as they are in a commit; None where the repository around it does not have that commit."""
    command = ["git", "-C", str(sources.parent), "archive", commit, "--", sources.name]
    try:
        packed = subprocess.run(command, capture_output=True, check=True, timeout=GIT_HANGS_AFTER_S).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    with tempfile.TemporaryDirectory() as folder, tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
        return source_hash(Path(folder) / sources.name)
