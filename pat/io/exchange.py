"""Puts a finished file or folder in the place of an old one so that at every moment one of the two is whole.

Linux swaps two names in one step. Where kernel or file system cannot, the old one is put aside first and comes back if the step is cut.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from contextlib import suppress
from pathlib import Path

AT_WORKING_FOLDER = -100
"""AT_FDCWD: names are paths as everywhere else."""
EXCHANGE = 2
"""RENAME_EXCHANGE of renameat2(2)."""
CANNOT = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM)
"""What kernels and file systems answer that know no exchange, or sandboxes that forbid it."""


def put_in_place(new: Path, out: Path, aside: Path) -> None:
    """Give `new` the name `out`; what was there goes, by way of `aside` where two names cannot be swapped in one step."""
    if not os.path.lexists(out):
        new.rename(out)
        return
    if not swap(new, out):
        out.rename(aside)
        new.rename(out)
    settle(new, out, aside)


def settle(new: Path, out: Path, aside: Path) -> None:
    """Leave `out` alone of the three names: as it is, or else as it was when a replacement was cut short."""
    if os.path.lexists(aside) and not os.path.lexists(out):
        aside.rename(out)
    for path in (aside, new):
        remove(path)


def swap(one: Path, other: Path) -> bool:
    """Swap two names in one step and return True, or False where kernel or file system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(AT_WORKING_FOLDER, os.fsencode(one), AT_WORKING_FOLDER, os.fsencode(other), EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in CANNOT:
        return False
    raise OSError(number, os.strerror(number), str(other))


def remove(path: Path) -> None:
    """Remove a file, a link or a folder, as far as the system allows."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)
