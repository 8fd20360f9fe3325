"""How far an experiment's run is: Snakemake's own summary of its outputs, in which a cell that is to be made again is not finished."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from pathlib import Path, PurePath
from statistics import median

from pat.errors import UserError
from study.results.times import FOLDER as MEASURED
from study.results.times import measured_in
from study.results.units import OF_CELLS, PARTS

SUMMARY = (sys.executable, "-m", "snakemake", "--summary", "--config", "only=", "--configfile")
"""Of the whole grid, whatever part of it the file asks for."""
HEADING = "output_file\t"
PENDING = "update pending"
OF_MODELS = ("models", "rotated", "refitted", "encoded", *OF_CELLS)
"""Folders in which a model's name comes next, and in those of cells its row's behind it."""
ALL_AT_ONCE = "world"
"""The rule whose one job writes files of several folders."""


@dataclass(frozen=True)
class Job:
    """A job by its rule, the model and the row that it is of, if it is of one, and the place of what it makes."""

    rule: str
    model: str
    row: str
    place: PurePath


@dataclass(frozen=True)
class Output:
    """A file that the experiment has or will have, below its results; `pending`: it is still to be made, or to be made again."""

    path: PurePath
    rule: str
    log: PurePath | None
    pending: bool

    @property
    def job(self) -> Job:
        """The job that makes it."""
        folder, *names = self.path.parts
        model = names[0] if folder in OF_MODELS else ""
        row = names[1] if folder in OF_CELLS else ""
        place = self.path.parent if model else PurePath() if self.rule == ALL_AT_ONCE else self.path
        return Job(self.rule, model, row, place)


def outputs_of(config: Path, results: Path) -> list[Output]:
    """Return all that an experiment makes but tables and figures. Raises UserError with what Snakemake says where it makes no plan."""
    asked = subprocess.run([*SUMMARY, str(config)], capture_output=True, text=True, check=False)
    lines = asked.stdout.splitlines()
    if asked.returncode != 0 or not any(line.startswith(HEADING) for line in lines):
        raise UserError(f"{config}: Snakemake makes no plan of it in this folder:\n{(asked.stderr or asked.stdout).strip()}")
    listed = [line.split("\t") for line in lines[1 + next(at for at, line in enumerate(lines) if line.startswith(HEADING)) :]]
    found = [
        Output(PurePath(path).relative_to(results), rule, _below(log, results), plan == PENDING)
        for path, _, rule, log, _, plan in listed
        if PurePath(path).is_relative_to(results)
    ]
    return [output for output in found if output.path.parts[0] in PARTS]


def _below(log: str, results: Path) -> PurePath | None:
    return PurePath(log).relative_to(results) if PurePath(log).is_relative_to(results) else None


@dataclass(frozen=True)
class Rest:
    """The jobs that are left: how many, of how many the time is known from others, and their times one after another."""

    jobs: int
    known: int
    wall_s: float
    unknown: Mapping[str, int]
    """Of what nothing is known yet: rule, and model where it is of one, with the number of its jobs."""


def rest_of(outputs: Sequence[Output], results: Path) -> Rest:
    """Return what is left, each job taken for as long as the middle one of its rule, model and row, else of its rule and model."""
    took: dict[tuple[str, ...], dict[Job, float]] = {}
    for output in outputs:
        if not output.pending and (wall_s := _wall_s(output, results)) is not None:
            for key in _keys(output.job):
                took.setdefault(key, {})[output.job] = wall_s
    left = {output.job for output in outputs if output.pending}
    found = {job: next((took[key] for key in _keys(job) if key in took), None) for job in left}
    unknown: dict[str, int] = {}
    for job in sorted(left, key=str):
        if found[job] is None:
            name = f"{job.rule} of {job.model}" if job.model else job.rule
            unknown[name] = unknown.get(name, 0) + 1
    times = [median(of_others.values()) for of_others in found.values() if of_others is not None]
    return Rest(len(left), len(times), fsum(times), unknown)


def _keys(job: Job) -> Iterator[tuple[str, ...]]:
    yield job.rule, job.model, job.row
    yield job.rule, job.model


def _wall_s(output: Output, results: Path) -> float | None:
    """Return how long the job of a finished output took; None where that was not measured."""
    if output.log is None:
        return None
    path = results / PurePath(MEASURED, *output.log.parts[1:]).with_suffix(".tsv")
    return measured_in(path, output.rule).wall_s if path.is_file() else None
