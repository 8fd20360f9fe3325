"""What it means for a user when the system refuses a file: a full disk, a read-only folder, a folder where a file should be.

Python, torch and safetensors each report it in their own way; here all become one UserError that names the file and what to do.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from pat.errors import UserError

NEXT = "then call the same command again; what is finished is kept"
MEANINGS = {
    errno.ENOENT: "no such file",
    errno.EISDIR: "is a folder, where a file is needed",
    errno.ENOTDIR: "cannot be there, because a part of the path is a file",
    errno.EEXIST: "is in the way, where a folder is to be made: move it away, or name another place",
    errno.ENOSPC: f"the disk is full: free some space, {NEXT}",
    errno.EDQUOT: f"the disk quota is used up: free some space, {NEXT}",
    errno.EROFS: f"the disk is read-only: make it writable, {NEXT}",
    errno.EACCES: f"permission is missing: grant it, {NEXT}",
    errno.EPERM: f"permission is missing: grant it, {NEXT}",
}
FULL_BELOW_BYTES = 64 * 2**10
"""Less free space than this, after a write has failed, is why: the part that was written is still there."""


SOFTWARE = (Path(__file__).parents[1], Path(sys.prefix))
OF_THE_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE)
"""What can be nobody's mistake but the machine's, whatever file it was."""


def is_refusal(error: OSError, arguments: Sequence[str] | None = None) -> bool:
    """Return whether an error that nobody has met is the system's refusal of something that the user named, and not a mistake of ours.

    It is where the file is named by one of the command's `arguments` (None: where it is no file of the software's), or where the machine
    itself fails. A library's OSError without a number, and a file of our own choice that is not there, keep their traceback.
    """
    if error.errno is None or error.errno in OF_THE_MACHINE:
        return error.errno is not None
    places = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    if arguments is None:
        return bool(places) and not any(own in Path(place).absolute().parents for place in places for own in SOFTWARE)
    return any(_is_named(place, argument) for place in places for argument in arguments)


def _is_named(place: str, argument: str) -> bool:
    """Return whether a file is what an argument says, is in its text (JSON), or lies above it, below it, or beside it as its temporary."""
    if "\0" in place or "\0" in argument:
        return place == argument
    value = argument.rpartition("=")[2] if argument.startswith("--") else argument
    file, named = Path(place).absolute(), Path(value).absolute()
    beside = any(each.parent == named.parent and each.name.startswith(f".{named.name}.") for each in (file, *file.parents))
    return bool(value) and (place in value or file == named or named in file.parents or file in named.parents or beside)


def check_regular(path: Path) -> None:
    """Raise UserError where a file to be read is a pipe, a socket or a device, which might never end, or never begin."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return  # whoever opens it says why
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise UserError(f"{path}: is a pipe, a socket or a device; a regular file is needed")


def check_writable(path: Path) -> None:
    """Raise UserError where nothing can be made below the first parent of `path` that exists; found out by making a file and removing it.

    Permissions alone do not say so: the disk may be read-only, or the kernel's own.
    """
    folder = next((each for each in path.absolute().parents if each.exists()), None)
    if folder is None or not folder.is_dir():
        return  # whoever makes the parents says why
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{path}: nothing can be written to {folder} ({MEANINGS.get(error.errno or 0, error.strerror)})") from None


def refusal(error: OSError, path: Path | None = None) -> UserError:
    """Return what the user reads of the system's refusal; `path` is what was worked on, where the error does not say."""
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
