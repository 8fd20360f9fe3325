"""The folder in which a job keeps its checkpoints while it runs: whose it is, that one job at a time is at work in it, what may go.

What an interrupted job of other settings or inputs has left there is put into a folder of its own, `other-<digest>`, and is back in its
place when that job is called again. Only what jobs leave there is ever moved or removed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from pat.errors import UserError
from pat.io import artefacts
from pat.io.exchange import remove
from pat.io.locks import Lock, acquire, owner
from pat.io.marks import SHOWN, special
from pat.io.storage import writing
from pat.machine.processes import is_main

JOB_NAME = "job.json"
LOCK_NAME = ".lock"
TRACKERS = "trackers.json"
"""Which runs of trackers the job has opened, to go on with after a kill."""
PROGRESS = re.compile(r"checkpoint-\d+|candidate\d+|training\.jsonl|dev\.jsonl|(row_)?losses\.json|trackers\.json")
"""What a job leaves while it runs."""
KEPT_APART = re.compile(r"other-[0-9a-f]{8}")
BESIDE = re.compile(r"job\.json|\.lock|\..+\.tmp|runs|wandb|mlflow\.db.*")
"""What may lie there too: the files of trackers, which stay when the job is done."""
logger = logging.getLogger(__name__)


def check_run_folder(run_dir: Path) -> None:
    """Raise UserError unless a run folder is absent, empty, or holds what jobs leave there and nothing else."""
    if not os.path.lexists(run_dir):
        return
    if problem := special(run_dir):
        raise UserError(f"--run-dir {run_dir}: {problem}")
    if not run_dir.is_dir():
        raise UserError(f"--run-dir {run_dir}: is a file, where a folder is needed")
    names = sorted(path.name for path in run_dir.iterdir())
    foreign = [name for name in names if not any(each.fullmatch(name) for each in (PROGRESS, KEPT_APART, BESIDE))]
    if foreign or (any(map(PROGRESS.fullmatch, names)) and job_in(run_dir) is None):
        shown = ", ".join(foreign[:SHOWN]) + (", …" if len(foreign) > SHOWN else "") or f"no {JOB_NAME}"
        raise UserError(f"--run-dir {run_dir}: is no folder that a job has kept its checkpoints in ({shown}); name a folder of its own")


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Make the folder and hold it for this job, which may be of several processes; at the end an empty one goes.

    Raises UserError where another job is at work in it, or where it holds what no job has left.
    """
    if not is_main():
        yield
        return
    check_run_folder(run_dir)
    lock = _lock(run_dir)
    if lock is None:
        raise UserError(
            f"{run_dir}: another job is at work in it ({owner(run_dir / LOCK_NAME)}); wait for its end and call the same command again, "
            "or name another --run-dir"
        )
    try:
        yield
    finally:
        lock.release(remove=True)
        with suppress(OSError):
            run_dir.rmdir()


def _lock(run_dir: Path) -> Lock | None:
    with writing(run_dir):
        while True:
            run_dir.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # the job before has ended and removed the folder in between
                return acquire(run_dir / LOCK_NAME)


def job_in(folder: Path) -> dict[str, object] | None:
    """Return the job that a run folder or a checkpoint belongs to; None where it says none."""
    try:
        found = artefacts.read_json(folder / JOB_NAME)
    except UserError:
        return None
    return found if isinstance(found, dict) else None


def enter(run_dir: Path, job: Mapping[str, object]) -> None:
    """Make the folder this job's: what another has left goes aside, what this one left comes back."""
    there = job_in(run_dir)
    if there != job and (left := _progress(run_dir)):
        aside = run_dir / f"other-{_digest(there)}"
        logger.warning("%s: holds checkpoints of other settings or inputs; they are kept in %s, which may be deleted", run_dir, aside)
        _move([*left, run_dir / JOB_NAME], aside)  # the job last: until then the next start goes on moving
    own = run_dir / f"other-{_digest(job)}"
    if there != job and own.is_dir():
        _move([path for path in own.iterdir() if path.name != JOB_NAME], run_dir)
        remove(own)
    if there != job:
        artefacts.write_json(run_dir / JOB_NAME, job)


def leave(run_dir: Path) -> None:
    """Remove what the job that has ended kept in its folder; what others have left stays, and the folder with it."""
    for path in [*_progress(run_dir), run_dir / JOB_NAME]:
        remove(path)


def _progress(run_dir: Path) -> list[Path]:
    return [path for path in sorted(run_dir.iterdir()) if PROGRESS.fullmatch(path.name)] if run_dir.is_dir() else []


def _move(paths: list[Path], folder: Path) -> None:
    with writing(folder):
        folder.mkdir(exist_ok=True)
        for path in paths:
            remove(folder / path.name)
            path.rename(folder / path.name)


def _digest(job: Mapping[str, object] | None) -> str:
    return hashlib.sha256(json.dumps(job, sort_keys=True).encode()).hexdigest()[:8]
