"""Which cells of a grid are there by their records, where weights and data are elsewhere, as those that a part of it has brought home.

Snakemake counts a cell as finished where all that it hangs on is there. Here the records are asked: whether each is whole, of the cell that
its place says, made with the experiment's settings, and from what lies beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from pat.errors import UserError
from pat.io.artefacts import read_record
from pat.io.dotted import dotted
from pat.settings.mistakes import shown
from study.experiment.schema import Cell, Experiment
from study.plan.asked import Asked
from study.plan.jobs import Plan
from study.results.cells import read_cells
from study.results.explain import RATE
from study.results.kept import RESULT, check_results
from study.results.units import OF_ALL

CHECKPOINTS = "checkpoints"
MOST_SHOWN = 5
"""Problems, and settings of one of them, that a refusal names."""
MEASURED = {"prune": {"calibration"}}
"""Fields among the settings of a step's record that say what it found, not what it was asked for."""


@dataclass(frozen=True)
class Recorded:
    """A cell that is there by its records: its result, and what the steps that made it have left beside it."""

    cell: Cell
    path: Path
    parts: tuple[Path, ...]


def result_of(cell: Cell) -> PurePath:
    """Return where a cell's result lies below the experiment's."""
    return PurePath("evaluation", cell.path, RESULT)


def on_record(experiment: Experiment, results: Path, source: str) -> list[Recorded]:
    """Return the cells of an experiment whose records lie below `results`, in the order of the grid; `source` names its file.

    Raises UserError where the folder or every cell is missing, or one is broken, is not of the grid, was made with other settings or from
    other data than the rest, or lacks the records of its steps.
    """
    check_results(results)
    plan = Plan(experiment)
    grid = {results / result_of(cell): Asked(plan, cell) for cell in experiment.cells()}
    there = sorted(results.glob(f"evaluation/*/*/*/*/{RESULT}"))
    if not there:
        raise UserError(f"{results}: holds no cell that is finished (evaluation/<model>/<row>/<ratio>/seed<k>/{RESULT})")
    _refuse([f"{path}: is no cell of {source}; move it away, or name the file of its experiment" for path in there if path not in grid])
    found = {path: asked for path, asked in grid.items() if path in there}
    read_cells(found)
    records = {path: read_record(path) for path in found}
    run = PurePath(plan.paths.results)
    steps = _Steps(results, run, [(asked, records[path]) for path, asked in found.items()])
    problems = [f"{path}: {problem}" for path, asked in found.items() for problem in _problems(asked, records[path], steps, source)]
    _refuse([*problems, *_read_otherwise(records, run)])
    return [Recorded(asked.cell, path, tuple(results / part for part in _parts(asked))) for path, asked in found.items()]


def _refuse(problems: Sequence[str]) -> None:
    """Raise UserError with the first of some problems, where there are any."""
    if problems:
        more = [f"and {len(problems) - MOST_SHOWN} more like these"] if len(problems) > MOST_SHOWN else []
        raise UserError("\n".join([*problems[:MOST_SHOWN], *more]))


def _parts(asked: Asked) -> list[PurePath]:
    """Return where the records lie that a cell cannot do without: of its checkpoint, not of bases that others share, nor of its scores."""
    return [place for place in (*asked.records(), *asked.rates()) if place.parts[0] == CHECKPOINTS]


def _problems(asked: Asked, record: Mapping[str, Any], steps: _Steps, source: str) -> Iterator[str]:
    """Yield what keeps a cell's record from being the one that the experiment asks for."""
    identity = asked.identity
    if other := _differences({name: record.get(name) for name in identity}, identity, source):
        yield f"is of something else: {other}"
        return
    for step, settings in asked.settings().items():
        own = (record["provenance"].get(step) or {}).get("settings")
        if not isinstance(own, dict):
            yield f"says nothing of the settings of its step {step}; it was made by an older version, or by another method"
            return
        if other := _differences(_asked_alone(step, own, settings), settings, source):
            yield f"was made with other settings, {step}: {other}"
            return
    yield from steps.problems(asked, record)


def _asked_alone(step: str, own: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record's settings as they were asked for: without what was measured, and with a rate that was searched left open."""
    found = {key: value for key, value in own.items() if key not in MEASURED.get(step, ())}
    tuning = found.get("tuning")
    if isinstance(tuning, dict) and asked.get("tuning", {}).get("learning_rate", 0) is None:
        found["tuning"] = tuning | {"learning_rate": None}
    return found


def _differences(own: Mapping[str, Any], asked: Mapping[str, Any], source: str) -> str:
    """Return in words which settings differ; nothing where none does."""
    ours, theirs = dict(dotted(own)), dict(dotted(asked))
    keys = [key for key in dict.fromkeys((*ours, *theirs)) if key not in ours or key not in theirs or ours[key] != theirs[key]]
    said = [f"{key} is {_value(ours, key)}, in {source} {_value(theirs, key)}" for key in keys[:MOST_SHOWN]]
    return "; ".join([*said, *(["…"] if len(keys) > MOST_SHOWN else [])])


def _value(settings: Mapping[str, Any], key: str) -> str:
    return shown(settings[key]) if key in settings else "not set"


class _Steps:
    """The records of the cells' steps on this disk, and which weights each of them stands for, as far as a cell says so.

    A row that others hang on may have been made again for a later part. Where that gave the same weights it is the same row; the cells of
    each part name the record of their own.
    """

    def __init__(self, results: Path, run: PurePath, cells: Sequence[tuple[Asked, Mapping[str, Any]]]) -> None:
        self._results, self._run = results, run
        named = [(place, record) for asked, record in cells for place in _parts(asked) if place not in asked.rates()]
        there = [place for place in dict.fromkeys(place for place, _ in named) if (results / place).is_file()]
        self._made = {place: read_record(results / place).get("provenance") for place in there}
        self._weights: dict[PurePath, object] = {}
        for place, record in named:
            if place in self._made and self._names(record, place):
                self._weights[place] = self._weights.get(place) or self._read_from(record, place)

    def problems(self, asked: Asked, record: Mapping[str, Any]) -> Iterator[str]:
        """Yield which records of a cell's steps are not there, or are of another making than the one that the cell names."""
        rates = asked.rates()
        for place in _parts(asked):
            path = self._results / place
            if not path.is_file():
                yield f"{path} is not there, though the cell was made from it; bring it along"
            elif place in rates:
                if read_record(path).get("learning_rate") != record["provenance"]["tune"]["settings"]["tuning"].get("learning_rate"):
                    yield f"was tuned at another rate than {path} has found"
            elif not self._names(record, place) and not self._has_same_weights(record, place):
                yield f"was made from another {path} than the one that is there; bring both from the same run"

    def _names(self, record: Mapping[str, Any], place: PurePath) -> bool:
        """Return whether a cell names just this record of a step."""
        return self._made[place] in [step for step in record["provenance"].values() if step]

    def _has_same_weights(self, record: Mapping[str, Any], place: PurePath) -> bool:
        """Return whether a cell has read the same weights as those that name the record."""
        weights = self._read_from(record, place)
        return weights is not None and weights == self._weights.get(place)

    def _read_from(self, record: Mapping[str, Any], place: PurePath) -> object:
        """Return the checksums of what a cell has read from a step's folder; None where it says nothing of it."""
        folder = str(self._run / place.parent)
        return next((checksums for path, checksums in _inputs(record) if path == folder), None)


def _read_otherwise(records: Mapping[Path, Mapping[str, Any]], run: PurePath) -> Iterator[str]:
    """Yield which cells read other data, another base or other weights of a row than the first that read them: tables would be of both."""
    first: dict[str, tuple[object, Path]] = {}
    for path, record in records.items():
        for name, checksums in _shared_inputs(record, run):
            known, its = first.setdefault(name, (checksums, path))
            if known != checksums:
                yield f"{path}: was made from another {name} than {its if its != path else 'by another of its steps'}"
                break


def _shared_inputs(record: Mapping[str, Any], run: PurePath) -> Iterator[tuple[str, object]]:
    """Yield what a cell's steps read of the data, base models and checkpoints of its run, each with its checksums.

    Rates are none of it: that one was searched again, with the same outcome, changes nothing.
    """
    folders = [run / folder for folder in (*OF_ALL, CHECKPOINTS)]
    for path, checksums in _inputs(record):
        if PurePath(path).name != RATE and any(PurePath(path).is_relative_to(folder) for folder in folders):
            yield path, checksums


def _inputs(record: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """Yield what a cell's steps read, each with its checksums."""
    for step in record["provenance"].values():
        inputs = (step or {}).get("inputs")
        for given in inputs.values() if isinstance(inputs, Mapping) else ():
            path = given.get("path") if isinstance(given, Mapping) else None
            if isinstance(path, str):
                yield path, given.get("sha256")
