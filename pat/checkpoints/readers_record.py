"""Whether a model folder's readers are refitted, and to which channels: what `pat refit-readers` wrote beside the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pat.errors import UserError
from pat.io import artefacts
from pat.settings.config import Mask, Readers

READERS_RECORD = "readers.json"
HELD_OUT, SECOND_TEXT = "calibration, held out", "second text"
"""What the record calls its texts: the one that chooses among the fits, and one that has no part in them."""


def readers_of(folder: Path) -> Readers:
    """Return how a model folder's readers read: plain where `pat refit-readers` did not make it."""
    return "least-squares" if (folder / READERS_RECORD).is_file() else "plain"


def kept_channels(folder: Path) -> list[int] | None:
    """Return the channels that a folder's readers are refitted to, ascending; None where they are plain."""
    return list(_record(folder)["kept"]) if readers_of(folder) != "plain" else None


def refitted_ratio(folder: Path) -> float | None:
    """Return the ratio that a folder's readers are refitted for; None where they are plain."""
    return float(_record(folder)["pruning_ratio"]) if readers_of(folder) != "plain" else None


def check_readers(base: Path, readers: Readers, mask: Mask, ratio: float) -> None:
    """Raise UserError unless a base's readers are what a PatConfig says: refitted to other channels, they would be wrong throughout."""
    there = readers_of(base)
    if there != readers:
        made = "what it was made from" if readers == "plain" else f"what `pat refit-readers --mask {mask} --ratio {ratio:g}` makes of it"
        raise UserError(f"--base {base}: its readers are {there}, pat.readers is {readers!r}: give {made}, or say pat.readers: {there}")
    if there == "plain":
        return
    record = _record(base)
    for name, expected in (("mask", mask), ("pruning_ratio", ratio)):
        if record[name] != expected:
            raise UserError(f"--base {base}: its readers are refitted for {name} {record[name]}, not {expected}: refit them again")


def _record(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = artefacts.read_json(folder / READERS_RECORD)
    return record
