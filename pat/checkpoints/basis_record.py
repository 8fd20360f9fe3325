"""Which basis a model folder is in: what `pat rotate`, or a later step, wrote beside the weights, and the guard that reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pat.checkpoints.readers_record import READERS_RECORD
from pat.errors import UserError
from pat.io import artefacts
from pat.settings.config import Basis, Tie

ROTATION_RECORD = "rotation.json"


def basis_of(folder: Path) -> str:
    """Return the basis that a model folder is in: native where neither `pat rotate` made it nor what it was refitted from."""
    return str(_record(folder).get("basis", "native"))


def tie_of(folder: Path) -> str | None:
    """Return what became of embedding and head in the change of basis: kept or broken; None where they were no single matrix."""
    return _record(folder).get("tie")


def _record(folder: Path) -> dict[str, Any]:
    records = [folder / name for name in (ROTATION_RECORD, READERS_RECORD) if (folder / name).is_file()]
    return artefacts.read_record(records[0]) if records else {}


def check_basis(base: Path, expected: Basis, tie: Tie = "keep") -> None:
    """Raise UserError unless a base is in the basis that a PatConfig says: merged in another, an adapter would give a wrong model."""
    there = basis_of(base)
    if there != expected:
        made = "the model itself" if expected == "native" else f"what `pat rotate --basis {expected}` makes of it"
        raise UserError(f"--base {base}: is in the {there} basis, pat.basis is {expected!r}: give {made}, or say pat.basis: {there}")
    known = {"kept": "keep", "broken": "break"}
    if (found := known.get(tie_of(base) or "", tie)) != tie:
        raise UserError(
            f"--base {base}: was rotated with --tie {found}, pat.tie is {tie!r}: give what `pat rotate --tie {tie}` makes of the model, "
            f"or say pat.tie: {found}"
        )
