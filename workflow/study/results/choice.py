"""Which of several folders a unit of an experiment is taken from: never a cell whose chain would be a mix of two folders.

A unit is taken from one folder, and only where what it was made from is what is taken of that. Copies nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath

from pat.errors import UserError
from pat.io.artefacts import sha256
from study.results.made import Made
from study.results.units import OF_ALL, Share, unit_of

MOST_SHOWN = 5
"""Settings that a refusal names."""


class Join:
    """What is taken of each unit, and from which of the folders; `into` comes first, and what it has stays."""

    def __init__(self, into: Share, shares: Sequence[Share]) -> None:
        self.into, self.shares = into, shares
        self.left_out: list[str] = []
        self._taken: dict[PurePath, Share | None] = {}
        for unit in dict.fromkeys(unit for share in (into, *shares) for unit in share.units):
            self._take(unit)

    @property
    def taken(self) -> dict[PurePath, Share]:
        """The units with the folder that each is from, in an order in which each comes behind what it was made from."""
        return {unit: share for unit, share in self._taken.items() if share is not None}

    @property
    def unlike(self) -> Iterator[tuple[PurePath, Share, Share]]:
        """The units that a folder has otherwise than the one that they are taken from, with both."""
        for unit, source in self.taken.items():
            for share in self.shares:
                if share is not source and unit in share.units and not same(source, share, unit):
                    yield unit, source, share

    def _take(self, unit: PurePath) -> Share | None:
        if unit not in self._taken:
            for needed in sorted({unit_of(path) for share in (self.into, *self.shares) for path in share.inputs(unit)}):
                self._take(needed)
            self._taken[unit] = self._first_fitting(unit)
        return self._taken[unit]

    def _first_fitting(self, unit: PurePath) -> Share | None:
        """Return the folder that has gone furthest with a unit, among equals the first, of those that fit what is taken already."""
        there = len(self.into.units.get(unit, ()))
        further = [share for share in self.shares if len(share.units.get(unit, ())) > there]
        reasons = []
        for share in sorted(further, key=lambda share: -len(share.units[unit])):
            if (reason := self._obstacle(share, unit)) is None:
                return share
            reasons.append(f"{unit} of {share.folder}: {reason}")
        self.left_out += reasons
        return self.into if there else None

    def _obstacle(self, share: Share, unit: PurePath) -> str | None:
        """Return in words what keeps a unit from being taken from a folder; None where nothing does."""
        for path in share.inputs(unit):
            source = self._taken[unit_of(path)]
            if path not in share.made:
                return f"it was made from {path}, which is not there any more"
            if source is None:
                return f"it was made from {path}, which is left out"
            if path not in source.made or source.content(path) != share.content(path):
                return f"it was made from {path} of its own folder; what is taken, of {source.folder}, has other bytes"
        for file in share.files(unit):
            there = self.into.folder / file
            if there.exists() and not _equal(there, share.folder / file):
                return f"{there} is there already, with other content"
        return None


def same(one: Share, other: Share, unit: PurePath) -> bool:
    """Return whether what cells can be made from of a unit is the same in two folders, as far as both have it."""
    both = [it.path for it in one.units[unit] if it.path in other.made and it.path.parts[0] != "evaluation"]
    return all(one.content(path) == other.content(path) for path in both)


def check_together(shares: Sequence[Share]) -> None:
    """Raise UserError, naming two files, where folders have made the same thing with other settings, or hang on other data or bases."""
    first: dict[PurePath, tuple[Share, Made]] = {}
    for share in shares:
        for made in (it for unit in share.units for it in share.chain(unit)):
            path = made.path
            known, its = first.setdefault(path, (share, made))
            if known is share:
                continue
            pair = f"{known.folder / path} and {share.folder / path}"
            if its.settings != made.settings:
                raise UserError(
                    f"{pair}: were made with different settings ({_beyond(its, made)}; {_beyond(made, its)}); nothing is joined"
                )
            if path.parts[0] in OF_ALL and known.content(path) != share.content(path):
                raise UserError(
                    f"{pair}: differ, and all cells hang on them; nothing is joined. Make data and base models once, and copy them to "
                    "every machine before its part is made"
                )


def _beyond(one: Made, other: Made) -> str:
    """Return what stands in the settings of one and not of the other, as it stands there."""
    ours, theirs = (",".join(made.settings).split(",") for made in (one, other))
    return ", ".join([piece for piece in ours if piece not in theirs][:MOST_SHOWN]) or "no more"


def _equal(one: Path, other: Path) -> bool:
    ours, theirs = one.stat(), other.stat()
    return ours.st_size == theirs.st_size and (ours.st_mtime_ns == theirs.st_mtime_ns or sha256(one) == sha256(other))
