"""Where the records of a run lie: its folder of results, and what a reference calls each, where those of a cell lie together."""

from __future__ import annotations

from pathlib import Path, PurePath

from pat.errors import UserError

CELLS, BASES = "cells", "bases"
KEPT_AS = {"models": BASES, "evaluation": CELLS, "checkpoints": CELLS}
RESULT = "cell.json"


def check_results(results: Path) -> None:
    """Raise UserError where an experiment's folder of results is not there: a name that is mistyped is no experiment that has not run."""
    if not results.is_dir():
        problem = "is a file" if results.exists() else "no such folder"
        raise UserError(f"{results}: {problem}; name results/<experiment>")


def kept_as(place: PurePath) -> str:
    """Return the name in a reference of a record that lies at a place below an experiment's results."""
    folder, *rest = place.parts
    return PurePath(KEPT_AS.get(folder, folder), *rest).as_posix()


def place_of(name: str) -> PurePath:
    """Return where below an experiment's results a record of a reference lay; a name of no such form stays as it is."""
    folder, *rest = PurePath(name).parts
    if folder == BASES:
        return PurePath("models", *rest)
    if folder == CELLS:
        return PurePath("evaluation" if rest[-1:] == [RESULT] else "checkpoints", *rest)
    return PurePath(name)
