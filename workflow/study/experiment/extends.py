"""`extends:` in an experiment's file: the file it starts from, so that a variant names its differences alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pat.errors import UserError
from pat.io.yaml_files import read_yaml
from pat.settings.mistakes import shown
from study.experiment.overrides import overridden

KEY = "extends"
MEANING = "another experiment's file that this one starts from; the path starts from this file's folder"
WHOLE = ("models", "methods", "seeds", "ratios")
"""What spans the grid is replaced as a whole: whoever gives any of it shows all of it."""
NAMED = (("data", "tasks"), ("data", "text"), ("tables", "ablations"), ("benchmark", "shapes"))
"""Blocks of named entries: one of the extended file that is null in the extending one is taken out."""
SOURCE = "source"
"""The key of a block that says where data comes from: such a block, too, is replaced, since each kind has keys of its own."""


def read_resolved(file: Path, below: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return an experiment file's contents laid over those of the files it extends; `below` are those that extend it.

    Raises UserError as `resolved` does.
    """
    raw = read_yaml(file)
    if not isinstance(raw, Mapping):
        raise UserError(f"{file}: must hold a mapping of keys, holds {shown(raw)}")
    return resolved(raw, file, below)


def resolved(raw: Mapping[str, Any], file: Path, below: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return the experiment's contents laid over those of the file it extends, key by key, and without the key itself.

    `file` is where the contents stand: the path of `extends` starts from its folder. Raises UserError on a path that is no text, a file
    that is missing or broken, and files that extend each other in a circle.
    """
    own = {key: value for key, value in raw.items() if key != KEY}
    if KEY not in raw:
        return own
    if not isinstance(raw[KEY], str):
        raise UserError(f"{file}: {KEY}: must be the path of an experiment's file, is {shown(raw[KEY])}")
    start = (file.parent / raw[KEY]).resolve()
    chain = (*below, file.resolve())
    if start in chain:
        raise UserError(f"{file}: {KEY}: {raw[KEY]} leads back to this file; an experiment cannot start from itself")
    base = read_resolved(start, chain)
    kept = {key: value for key, value in base.items() if not (key in WHOLE and key in own)}
    return _without_nulls(overridden(kept, own, whole_with=(SOURCE,)), base)


def _without_nulls(whole: dict[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """Return the contents without those named entries of `base` that are null; one of its own may be: a known shape is."""
    for section, block in NAMED:
        entries, before = _entries(whole, section, block), _entries(base, section, block)
        if entries:
            whole[section][block] = {name: entry for name, entry in entries.items() if entry is not None or name not in before}
    return whole


def _entries(contents: Mapping[str, Any], section: str, block: str) -> Mapping[str, Any]:
    entries = contents[section].get(block) if isinstance(contents.get(section), Mapping) else None
    return entries if isinstance(entries, Mapping) else {}
