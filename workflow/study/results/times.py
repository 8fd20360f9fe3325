"""How long an experiment's jobs took, as Snakemake has measured each: a file a job under `results/<experiment>/benchmarks/`.

A file is written when its job ends, so that its time stamp is the end. Of a job that was begun more than once, the last attempt counts.
What an earlier form of the experiment has left, of cells that its tables no longer have, is no job of it.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any

from pat.errors import UserError
from pat.io.storage import refusal
from study.plan.paths import before_the_cut
from study.results.options import TABLE_OF_CELLS, behind_tables

FOLDER = "benchmarks"
KINDS_OF_STEPS = ("data", "benchmark")
"""Folders in which every step has a folder, or a file, of its own; elsewhere the outermost folder is the step."""
OF_CELLS = ("tune", "merge", "prune", "checkpoints", "sizes", "evaluate", "collect", "report/health")
"""Below these lies a file for each cell, or for what it has before its cut: model/row/ratio/seed."""
OF_ARMS = "search"
"""Below it lies a file for all seeds: model/row/ratio."""
PLACE_STEPS = len(Path("model/row/ratio/seed").parts)
NOT_SAMPLED = "NA"
PAUSE_SHARE = 0.01


@dataclass(frozen=True)
class JobTime:
    """A job's step, its wall time, its processor time (None where it ended before that was sampled), and when it ended, since the epoch."""

    step: str
    wall_s: float
    processor_s: float | None
    ended_s: float

    @property
    def started_s(self) -> float:
        """When it began, since the epoch."""
        return self.ended_s - self.wall_s


@dataclass(frozen=True)
class RunTime:
    """What all jobs took: from the first start to the last end, with a job at work, one after another, and of processors."""

    jobs: int
    span_s: float
    busy_s: float
    wall_s: float
    processor_s: float

    def record(self) -> dict[str, Any]:
        """Return it as a record keeps it, to a tenth of a second."""
        return {name: round(value, 1) for name, value in asdict(self).items()}

    @property
    def paused(self) -> bool:
        """Whether no job was at work for a while."""
        return self.busy_s < (1 - PAUSE_SHARE) * self.span_s


def read_times(results: Path, cells: Collection[PurePath] | None = None) -> list[JobTime]:
    """Return the jobs of an experiment in the order in which they began: those behind its tables, or behind some cells by their places.

    Raises UserError without any, or on a broken or copied file.
    """
    folder = results / FOLDER
    measured = {path: path.relative_to(folder) for path in sorted(folder.rglob("*.tsv"))}
    jobs = {path: measured_in(path, step_of(name)) for path, name in measured.items()}
    if not jobs:
        raise UserError(
            f"--results {results}: holds no measurements of jobs ({FOLDER}/*.tsv); name results/<experiment> of one that ran here: those "
            "that were fetched have none"
        )
    _check_order(folder, {name: jobs[path] for path, name in measured.items()})
    known, written_s = _in_tables(results) if cells is None else (_places(cells), float("inf"))
    left_over = {path for path, name in measured.items() if place_of(name) not in known and jobs[path].ended_s < written_s}
    return sorted((job for path, job in jobs.items() if path not in left_over), key=lambda job: job.started_s)


def _check_order(folder: Path, jobs: Mapping[Path, JobTime]) -> None:
    """Raise UserError where a cell was scored while it was tuned: time stamps are then those of a copy, not of the jobs.

    Where its scores are older than the whole tuning, it was tuned again and is not scored again yet.
    """
    for name, tuned in jobs.items():
        scored = jobs.get(Path("evaluate", *name.parts[1:])) if name.parts[0] == "tune" else None
        if scored is not None and tuned.started_s < scored.ended_s < tuned.ended_s + scored.wall_s / 2:
            raise UserError(
                f"{folder}: was copied without the times of its files, which tell when each job ended: by them {name.with_suffix('')} was "
                "scored before its tuning had ended; copy it again with its times (cp -a, rsync -t), or remove the folder"
            )


def place_of(measured: Path) -> PurePath | None:
    """Return of which cell, or of which arm, a file in the folder of measurements is; None where it is of neither."""
    name = measured.with_suffix("").as_posix()
    step = next((step for step in (*OF_CELLS, OF_ARMS) if name.startswith(f"{step}/")), None)
    return None if step is None else PurePath(name.removeprefix(f"{step}/"))


def _in_tables(results: Path) -> tuple[set[PurePath | None], float]:
    """Return the places of all cells that the tables have, before the cut and of all seeds too, and when the tables were written.

    None is among them: what is of no cell. Where there are no tables yet, nothing is older than them.
    """
    if not (results / TABLE_OF_CELLS).is_file():
        return {None}, float("-inf")
    cells = {PurePath(*path.parent.parts[-PLACE_STEPS:]) for path in behind_tables(results)}
    return _places(cells), (results / TABLE_OF_CELLS).stat().st_mtime


def _places(cells: Collection[PurePath]) -> set[PurePath | None]:
    """Return the places of cells, before the cut and of all seeds too, and None."""
    whole = {*cells, *map(before_the_cut, cells)}
    return {None, *whole, *(cell.parent for cell in whole)}


def step_of(measured: Path) -> str:
    """Return the step that a file in the folder of measurements is about."""
    parts = measured.with_suffix("").parts
    return "/".join(parts[: 1 + (parts[0] in KINDS_OF_STEPS)])


def measured_in(path: Path, step: str) -> JobTime:
    """Return what Snakemake has measured of a step's job. Raises UserError where a file is no measurement."""
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            line = next(csv.DictReader(stream, delimiter="\t"))
        processor = line["cpu_time"]
        return JobTime(step, float(line["s"]), None if processor == NOT_SAMPLED else float(processor), path.stat().st_mtime)
    except OSError as error:
        raise refusal(error, path) from None
    except (StopIteration, KeyError, TypeError, ValueError, csv.Error) as error:
        reason = "no line of values" if isinstance(error, StopIteration) else repr(error)
        raise UserError(f"{path}: is not what Snakemake measures of a job ({reason}); remove it, it is made when its job runs") from None


def whole(jobs: Sequence[JobTime]) -> RunTime:
    """Return what some jobs took together."""
    first, last = min(job.started_s for job in jobs), max(job.ended_s for job in jobs)
    walls, processors = (job.wall_s for job in jobs), (job.processor_s or 0.0 for job in jobs)
    return RunTime(len(jobs), last - first, busy_s(jobs), sum(walls), sum(processors))


def busy_s(jobs: Sequence[JobTime]) -> float:
    """Return the seconds in which at least one of the jobs was at work."""
    busy, until = 0.0, float("-inf")
    for job in sorted(jobs, key=lambda job: job.started_s):
        busy += max(0.0, job.ended_s - max(until, job.started_s))
        until = max(until, job.ended_s)
    return busy
