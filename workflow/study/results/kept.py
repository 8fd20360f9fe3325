"""What a reference calls the records of a run: those of a cell lie together, of whichever folder of the results they are."""

from __future__ import annotations

from pathlib import PurePath

CELLS, BASES = "cells", "bases"
RESULT = "cell.json"


def kept_as(place: PurePath) -> str:
    """Return the name in a reference of a record that lies at a place below an experiment's results."""
    folder, *rest = place.parts
    return PurePath(BASES if folder == "models" else CELLS, *rest).as_posix()


def place_of(name: str) -> PurePath:
    """Return where below an experiment's results a record of a reference lay; a name of no such form stays as it is."""
    folder, *rest = PurePath(name).parts
    if folder == BASES:
        return PurePath("models", *rest)
    if folder == CELLS:
        return PurePath("evaluation" if rest[-1:] == [RESULT] else "checkpoints", *rest)
    return PurePath(name)
