"""Names under which outputs grow before they have their own, and who owns them: a living process, by a lock that ends with it.

An output `m` grows beside its place as `.m.<token>.tmp`, owned through `.m.<token>.lock.tmp`; `.m.<token>.old.tmp` is what it replaces.
The token has no dot, so that names of `m` and of `m.1` differ.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pat.io.exchange import remove, settle
from pat.io.locks import Lock, acquire

TOKEN = r"[0-9a-f]{16}"
OF_A_PROCESS = r"\d{1,10}"
"""What stood in a token's place until 0.1.0: the process that owned the name."""


@dataclass(frozen=True)
class Names:
    """The names of one output on its way to `out`."""

    out: Path
    token: str

    def _sibling(self, kind: str) -> Path:
        return self.out.with_name(f".{self.out.name}.{self.token}{kind}.tmp")

    @property
    def new(self) -> Path:
        """Where the output grows."""
        return self._sibling("")

    @property
    def aside(self) -> Path:
        """Where the old one waits while two names cannot be swapped in one step."""
        return self._sibling(".old")

    @property
    def lock(self) -> Path:
        """What the owner holds."""
        return self._sibling(".lock")


@contextmanager
def names_for(out: Path) -> Iterator[Names]:
    """Yield names beside `out` that no other job has, in a parent folder that is there; at the end nothing is left under them."""
    out.parent.mkdir(parents=True, exist_ok=True)
    sweep(out)
    names, lock = _own_names(out)
    try:
        yield names
    finally:
        settle(names.new, out, names.aside)
        lock.release(remove=True)


def _own_names(out: Path) -> tuple[Names, Lock]:
    while True:
        names = Names(out, secrets.token_hex(8))
        if (lock := acquire(names.lock)) is not None:  # else someone who sweeps has met it before its owner held it
            return names, lock


def sweep(out: Path) -> None:
    """Remove what dead jobs have left of exactly this output; where one died between two renames, the old output is back afterwards."""
    for names in _left_behind(out, TOKEN):
        lock = acquire(names.lock) if names.lock.exists() else None
        if lock is None:
            continue
        if lock.certain:
            settle(names.new, out, names.aside)
        lock.release(remove=lock.certain)
    for names in _left_behind(out, OF_A_PROCESS):
        if not Path("/proc", names.token).exists():
            settle(names.new, out, names.aside)


def _left_behind(out: Path, token: str) -> list[Names]:
    try:
        listed = [path.name for path in out.parent.iterdir()]
    except OSError:
        return []
    return [Names(out, each) for each in sorted(tokens_in(listed, out.name, token))]


def tokens_in(listed: Iterable[str], name: str, token: str = TOKEN) -> set[str]:
    """Return the tokens of those of the listed names that belong to the output `name`."""
    pattern = re.compile(rf"\.{re.escape(name)}\.({token})(\.old|\.lock)?\.tmp")
    return {match[1] for each in listed if (match := pattern.fullmatch(each))}


@contextmanager
def file_for(path: Path) -> Iterator[Path]:
    """Yield a name beside `path` for a small file that is written at once; at the end nothing is left under it."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        yield temporary
    finally:
        with suppress(OSError):
            remove(temporary)
