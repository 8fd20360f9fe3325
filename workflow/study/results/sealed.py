"""Which folders of results are not those that Snakemake's records are about: their seals say so, which travel with them.

What sets seals, and why, is in `study.versions.seals`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from pat.io.artefacts import read_json
from pat.io.marks import SEAL
from study.plan.phases import PHASES
from study.results.made import state_of

FOLDER = "seals"
"""Beside Snakemake's records: the seals that were set here."""


def foreign(results: Path) -> list[Path]:
    """Return the folders that carry a seal which was not set here: Snakemake's record is not about what is in them."""
    record = record_of(results)
    known = read_json(record) if record.is_file() else {}
    folders = [folder for phase in PHASES.values() for folder in phase.folders]
    return [results / folder for folder in folders if (found := seal_of(results / folder)) and found not in known.get(folder, [])]


def record_of(results: Path) -> Path:
    """Return where the seals that were set on an experiment's results are on record."""
    return state_of(results) / FOLDER / f"{results.name}.json"


def seal_of(folder: Path) -> str | None:
    """Return a folder's seal, None where it has none."""
    path = folder / SEAL
    return short(path.read_text(encoding="utf-8")) if path.is_file() else None


def short(text: str) -> str:
    """Return a seal by its checksum."""
    return hashlib.sha256(text.encode()).hexdigest()
