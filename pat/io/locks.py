"""Locks on files that end with the process which holds them, whatever ends it: so that nobody takes the living for dead."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)
"""What file systems answer that know no locks."""
LONGEST_OWNER = 200


@dataclass(frozen=True)
class Lock:
    """A held lock; `certain` is False where the file system has none, so that others may hold it too."""

    path: Path
    descriptor: int
    certain: bool

    def release(self, *, remove: bool) -> None:
        """Let others have the lock; with `remove` its file goes first, which those who wait for it notice."""
        if remove:
            self.path.unlink(missing_ok=True)
        with suppress(OSError):
            os.close(self.descriptor)


def acquire(path: Path) -> Lock | None:
    """Return the lock on a file, which is made where it is not there; None where a living process holds it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            certain = _locked(descriptor)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError:
            os.close(descriptor)
            raise
        if _is_at(descriptor, path):  # else its last holder has removed it in between
            _note_owner(descriptor)
            return Lock(path, descriptor, certain)
        os.close(descriptor)


def owner(path: Path) -> str:
    """Return who holds a lock, in words."""
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            return stream.read(LONGEST_OWNER).strip() or "another process"
    except OSError:
        return "another process"


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        return False
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _note_owner(descriptor: int) -> None:
    with suppress(OSError):  # on a full disk the lock holds without
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {os.uname().nodename}\n".encode())
