"""What of an experiment's results is taken whole or not at all: a cell with all its files, a base, a set of data, a search.

Knows what such a unit hangs on, by Snakemake's records, and whether two folders have the same of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

from pat.checkpoints.lineage import CARD_NAME
from pat.errors import UserError
from pat.io.artefacts import MANIFEST, listed_files, read_record, sha256
from pat.io.marks import FOLDER_RECORDS, SEAL
from study.plan.intermediates import WEIGHTS
from study.results.explain import RATE
from study.results.made import Made, gone_from, made_in
from study.results.times import FOLDER as MEASURED

OF_ALL = ("data", "models")
"""Folders of what every cell hangs on."""
OF_CELLS = ("checkpoints", "evaluation")
PARTS = (*OF_ALL, "rotated", "refitted", "encoded", *OF_CELLS, "benchmark")
"""Folders of what is made once; tables and figures are functions of them."""
CELL_STEPS = len(PurePath("checkpoints/model/row/ratio/seed").parts)
LOGS, PRUNING = "logs", "prune"
UNLIKE = (*FOLDER_RECORDS, CARD_NAME)
"""Files of a folder that tell of its making, such as how long it took."""


def unit_of(path: PurePath) -> PurePath:
    """Return the unit that an output belongs to: model/row/ratio/seed of a cell, or its own folder, or itself."""
    if path.parts[0] in OF_CELLS and len(path.parts) > CELL_STEPS:
        return PurePath(*path.parts[1:CELL_STEPS])
    return path.parent if path.name == MANIFEST else path


class Share:
    """What one folder of results has of an experiment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made = {it.path: it for it in made_in(folder) if it.path.parts[0] in PARTS}
        self.units: dict[PurePath, list[Made]] = {}
        for it in self.made.values():
            self.units.setdefault(unit_of(it.path), []).append(it)
        self._gone = {it.path: it for it in gone_from(folder) if it.path.parts[0] in PARTS}

    def chain(self, unit: PurePath) -> list[Made]:
        """Return a unit's outputs, and those behind them that are gone, as a model that was pruned to be tuned."""
        found = list(self.units.get(unit, ()))
        for it in found:
            behind = [self._gone[path] for path in it.inputs if path in self._gone and unit_of(path) == unit]
            found += [gone for gone in behind if gone not in found]
        return found

    def check_whole(self) -> None:
        """Raise UserError where a file is not there in the size that its folder's manifest lists, as after a copy that was cut off."""
        for folder in (self.folder / it.path.parent for it in self.made.values() if it.path.name == MANIFEST):
            for name, listed in listed_files(folder).items():
                if not (folder / name).is_file() or (folder / name).stat().st_size != listed["bytes"]:
                    raise UserError(
                        f"{folder / name}: is missing or not as long as {folder / MANIFEST} lists it; copy the folder again, or delete it"
                    )

    def inputs(self, unit: PurePath) -> list[PurePath]:
        """Return what a unit was made from of others."""
        given = {path for it in self.chain(unit) for path in it.inputs if path.parts[0] in PARTS}
        return sorted(path for path in given if unit_of(path) != unit)

    def content(self, path: PurePath) -> Any:
        """Return what an output is known by: equal for what is the same but for how it was made, and how long that took."""
        place = self.folder / path
        if path.name == MANIFEST:
            return {name: listed["sha256"] for name, listed in listed_files(place.parent).items() if name not in UNLIKE}
        return read_record(place).get("learning_rate") if path.name == RATE else sha256(place)

    def files(self, unit: PurePath) -> list[PurePath]:
        """Return a unit's files in the order in which they may appear: an output is the last of its own."""
        found = [*self._left_of_pruned(unit), *(file for it in self.units[unit] for file in self._of(it))]
        return list(dict.fromkeys(found))

    def notes(self, unit: PurePath) -> list[PurePath]:
        """Return the logs of a unit's jobs and how long they took."""
        logs = [log for it in self.units[unit] for log in it.logs]
        logs += [PurePath(LOGS, PRUNING, f"{unit}.log")] if any(self._left_of_pruned(unit)) else []
        times = [PurePath(MEASURED, *log.parts[1:]).with_suffix(".tsv") for log in logs if log.parts[0] == LOGS]
        return [note for note in dict.fromkeys([*logs, *times]) if (self.folder / note).is_file()]

    def _of(self, made: Made) -> list[PurePath]:
        return [*self._in(made.path.parent), made.path] if made.path.name == MANIFEST else [made.path]

    def _in(self, folder: PurePath) -> Iterator[PurePath]:
        for path in sorted((self.folder / folder).rglob("*")):
            if path.is_file() and path.name not in (MANIFEST, SEAL) and not (path.name.startswith(".") and path.name.endswith(".tmp")):
                yield path.relative_to(self.folder)

    def _left_of_pruned(self, unit: PurePath) -> Iterator[PurePath]:
        """Yield the records of a model that was pruned to be tuned, whose weights are gone: the cell's own records name them."""
        folder = PurePath("checkpoints", unit, "pruned")
        if folder / MANIFEST not in self.made:
            yield from (path for path in self._in(folder) if not path.match(WEIGHTS))
