"""A run that is killed again and again, at random moments and in three ways, ends in the bytes of an undisturbed one."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
import pytest

from pat.io.artefacts import MANIFEST
from tests.kit.children import HANGS_AFTER_S, found_in, wait_for, wait_until
from tests.kit.project import copy_workflow
from tests.kit.smoke_run import RESULTS, checkpoints, run, started, tables, wait_for_orphans

KILLS = 20
SEED = 0
LONGEST_WAIT_S = 4.0
"""After the job that a kill is tied to: into the middle of one of the next, which take a few seconds each."""
SHARE_IN_TRAININGS = 0.5
"""Of the kills wait for a training, which is a small part of its job's time here and would else be met too seldom."""
TARGETS = ("group", "snakemake", "job")
Trainings = dict[str, int]
"""The newest sealed step of each training under way, by its folder."""


@dataclass(frozen=True)
class Loss:
    """What one kill met: how many jobs were done, and the trainings under way, which have to go on from where they were sealed."""

    target: str
    at: float
    jobs_done: int
    trainings: Trainings
    seconds: dict[str, float]


def jobs_done(folder: Path) -> int:
    """Return how many jobs have finished: Snakemake writes a job's times when it is done."""
    return len(found_in(folder / RESULTS / "benchmarks", "**/*.tsv"))


def under_way(folder: Path) -> tuple[Trainings, dict[str, float]]:
    """Return, of every training that has started and not ended, its newest sealed step, 0 if none, and the seconds since."""
    steps: Trainings = {}
    seconds: dict[str, float] = {}
    jobs = [path for path in found_in(folder / RESULTS, "**/job.json") if not path.parent.name.startswith("checkpoint-")]
    for job in sorted(jobs):
        seals = {int(path.parent.name.rpartition("-")[2]): path for path in found_in(job.parent, f"checkpoint-*/{MANIFEST}")}
        step = max(seals, default=0)
        name = job.parent.relative_to(folder).as_posix()
        with suppress(FileNotFoundError):  # the training has ended meanwhile
            seconds[name] = time.time() - seals.get(step, job).stat().st_mtime
            steps[name] = step
    return steps, seconds


def resumed(folder: Path, since: float) -> Trainings:
    """Return from which step each training has gone on, as the logs that were written since then say."""
    found = {}
    for log in (folder / RESULTS / "logs").rglob("*.log"):
        if log.stat().st_mtime > since and (said := re.search(r"resuming from (\S+)/checkpoint-(\d+)", log.read_text())):
            found[said[1]] = int(said[2])
    return found


def victims(process: subprocess.Popen[bytes], target: str) -> list[psutil.Process]:
    """Return what to kill: everything, Snakemake alone, or one job with what it has started; nothing where that is not there yet."""
    try:
        top = psutil.Process(process.pid)
        below = top.children(recursive=True)
        if target == "group":
            return [top, *below]
        schedulers = [each for each in below if "--rerun-incomplete" in each.cmdline()][:1]
        if target == "snakemake":
            return schedulers
        jobs = [job for each in schedulers for job in each.children()][:1]
        return [each for job in jobs for each in (job, *job.children(recursive=True))]
    except psutil.NoSuchProcess:  # one of them ended meanwhile
        return []


def kill(process: subprocess.Popen[bytes], target: str) -> bool:
    """Kill the target as soon as it is there; return whether it was before the run ended."""
    met: list[psutil.Process] = []

    def met_or_over() -> bool:
        if process.poll() is not None:
            return True
        chosen = victims(process, target)
        if target == "group":
            os.killpg(process.pid, signal.SIGKILL)
        for each in chosen:
            with suppress(psutil.NoSuchProcess):  # it has ended meanwhile: of itself, or with what was killed just before
                each.kill()
                met.append(each)
        return bool(met)

    wait_until(met_or_over)
    return bool(met)


def wait_for_jobs(folder: Path, process: subprocess.Popen[bytes], jobs: int) -> None:
    """Wait until this many jobs are done, or the run has ended."""
    wait_until(lambda: jobs_done(folder) >= jobs or process.poll() is not None)


def wait_for_training(folder: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until a training has sealed a checkpoint, or no job is left that could."""
    tables_begun = (folder / RESULTS / "tables").exists
    wait_until(lambda: process.poll() is not None or any(under_way(folder)[0].values()) or tables_begun())


def disturbed(folder: Path, kills: int, jobs: int, seed: int) -> list[Loss]:
    """Run the experiment, of so many jobs, killing it so often; return what each kill met. A run that outlives its job goes on."""
    draw = random.Random(seed)
    losses: list[Loss] = []
    process = started(folder)
    for moment in sorted(draw.sample(range(jobs - 1), kills)):
        if process.poll() is not None:
            wait_for_orphans(folder)
            process = started(folder)
        wait_for_jobs(folder, process, moment)
        time.sleep(draw.uniform(0, LONGEST_WAIT_S))
        if losses:
            check_resumed(folder, losses[-1])
        if draw.random() < SHARE_IN_TRAININGS:
            wait_for_training(folder, process)
        before, target = under_way(folder), draw.choice(TARGETS)
        if kill(process, target):
            losses.append(Loss(target, time.time(), jobs_done(folder), *before))
        if target != "job":
            process.wait(HANGS_AFTER_S)
        assert "Traceback" not in (folder / "run.log").read_text()
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    wait_for_orphans(folder)
    return losses


def check_resumed(folder: Path, loss: Loss) -> None:
    """Check that what has gone on since a kill went on from the newest seal: no more than one interval was lost."""
    for name, step in resumed(folder, loss.at).items():
        assert step >= loss.trainings.get(name, 0)


def told(number: int, loss: Loss) -> str:
    """Return in words what a kill has cost at most."""
    parts = [f"{name} goes on from step {step}, {loss.seconds[name]:.1f} s lost" for name, step in loss.trainings.items()]
    return f"kill {number} ({loss.target}) after {loss.jobs_done} jobs: {'; '.join(parts) or 'no training under way'}"


def test_a_cell_killed_in_three_ways_ends_in_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cell"
    shutil.copytree(finished, folder, symlinks=True)
    shutil.rmtree(folder / RESULTS / "checkpoints/tiny/pat")
    for target in TARGETS:
        process = started(folder)
        wait_for(partial(victims, process, "job"), process)
        time.sleep(1)
        assert kill(process, target)
        process.wait(HANGS_AFTER_S)
        assert "Traceback" not in (folder / "run.log").read_text()
        wait_for_orphans(folder)
    last = run(folder, forked=True)
    assert last.returncode == 0, last.stdout + last.stderr
    assert tables(folder) == tables(finished)
    assert checkpoints(folder) == checkpoints(finished)


@pytest.mark.slow
def test_runs_killed_twenty_times_end_in_the_same_bytes(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run that has ended before all its kills is followed by another, which meets the rest of them."""
    losses: list[Loss] = []
    while len(losses) < KILLS:
        folder = copy_workflow(tmp_path / f"after{len(losses)}")
        losses += disturbed(folder, KILLS - len(losses), jobs_done(finished), SEED + len(losses))
        last = run(folder)
        assert last.returncode == 0, last.stdout + last.stderr
        assert tables(folder) == tables(finished)
        assert checkpoints(folder) == checkpoints(finished)
    with capsys.disabled():
        sys.stdout.writelines(f"\n{told(number, loss)}" for number, loss in enumerate(losses, start=1))
    assert {loss.target for loss in losses} == set(TARGETS)
