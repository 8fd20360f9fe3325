"""What it means for a user when the system refuses a file: a full disk, a read-only folder, a folder where a file should be.

Python, torch and safetensors each report it in their own way; here all become one UserError that names the file and what to do.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from pat.errors import UserError

NEXT = "then call the same command again; what is finished is kept"
MEANINGS = {
    errno.ENOENT: "no such file",
    errno.EISDIR: "is a folder, where a file is needed",
    errno.ENOTDIR: "cannot be there, because a part of the path is a file",
    errno.ENOSPC: f"the disk is full: free some space, {NEXT}",
    errno.EDQUOT: f"the disk quota is used up: free some space, {NEXT}",
    errno.EROFS: f"the disk is read-only: make it writable, {NEXT}",
    errno.EACCES: f"permission is missing: grant it, {NEXT}",
    errno.EPERM: f"permission is missing: grant it, {NEXT}",
}
FULL_BELOW_BYTES = 64 * 2**10
"""Less free space than this, after a write has failed, is why: the part that was written is still there."""


def refusal(error: OSError, path: Path | None = None) -> UserError:
    """Return what the user is told of the system's refusal; `path` is what was worked on, where the error does not say."""
    place = error.filename2 or error.filename or path
    meaning = MEANINGS.get(error.errno or 0) or error.strerror or str(error)
    return UserError(f"{place}: {meaning}" if place else meaning)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what a library says of a refused write below `path` into a UserError; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise refusal(error, path) from error
    except (RuntimeError, SafetensorError) as error:
        if not is_full(path):
            raise
        raise UserError(f"{path}: {MEANINGS[errno.ENOSPC]}") from error


def is_full(path: Path) -> bool:
    """Return whether the disk below `path`, or below its first parent that exists, has no room left."""
    there = next(each for each in (path, *path.absolute().parents) if each.exists())
    return shutil.disk_usage(there).free < FULL_BELOW_BYTES
