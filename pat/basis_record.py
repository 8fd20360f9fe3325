"""Which basis a model folder is in: what `pat rotate`, or a later step, wrote beside the weights, and the guard that reads it."""

from __future__ import annotations

from pathlib import Path

from pat import artefacts
from pat.config import Basis
from pat.errors import UserError
from pat.readers_record import READERS_RECORD

ROTATION_RECORD = "rotation.json"


def basis_of(folder: Path) -> str:
    """Return the basis that a model folder is in: native where neither `pat rotate` made it nor what it was refitted from."""
    records = [folder / name for name in (ROTATION_RECORD, READERS_RECORD) if (folder / name).is_file()]
    return str(artefacts.read_record(records[0]).get("basis")) if records else "native"


def check_basis(base: Path, expected: Basis) -> None:
    """Raise UserError unless a base is in the basis that a PatConfig says: merged in another, an adapter would give a wrong model."""
    there = basis_of(base)
    if there == expected:
        return
    made = "the model itself" if expected == "native" else f"what `pat rotate --basis {expected}` makes of it"
    raise UserError(f"--base {base}: is in the {there} basis, pat.basis is {expected!r}: give {made}, or say pat.basis: {there}")
