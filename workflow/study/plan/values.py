"""What the experiment says, as rules take it: wildcard constraints, arguments of commands, input files."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable
from pathlib import Path

from pat.settings.fields import Settings


def one_of(names: Iterable[object]) -> str:
    """Return a wildcard constraint that matches these names alone, and nothing where there are none."""
    return "|".join(re.escape(str(name)) for name in names) or "(?!)"


def as_json(value: object) -> str:
    """Return a value as the compact JSON argument that the verbs take; equal settings give equal text."""
    return json.dumps(value.model_dump(mode="json") if isinstance(value, Settings) else value, sort_keys=True, separators=(",", ":"))


def repeated(option: str, values: Iterable[str]) -> str:
    """Return an option once a value, quoted as a shell needs it: the rules put it into their commands as it is."""
    return " ".join(f"{option} {shlex.quote(value)}" for value in values)


def existing(path: Path) -> list[str]:
    """Return a source file, or a source folder's own files and saved splits, as inputs; nothing where they are not on this machine.

    A plan can then be made anywhere; the job that reads the source says what is missing.
    """
    if path.is_dir():
        return sorted(str(file) for file in [*path.iterdir(), *path.glob("*/*.arrow")] if file.is_file())
    return [str(path)] if path.is_file() else []
