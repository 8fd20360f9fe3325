"""The smoke experiment as a user runs it, and what it leaves. What the tests of whole runs share."""

from __future__ import annotations

import csv
import io
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import psutil

from pat.io.artefacts import MANIFEST, sha256
from tests.kit.children import HANGS_AFTER_S, wait_until
from tests.kit.forked import forks, with_forked_jobs

CONFIG = "config/smoke.yaml"
RESULTS = Path("results/smoke")
COMMIT = ("git_commit", "git_dirty")
TIMED = (MANIFEST, "tuning.json", "merge.json", "prune.json", "rotation.json", "pretraining.json")
"""Files of a checkpoint that hold how long it took, or a checksum of one that does."""


NO_NETWORK = ("unshare", "--map-root-user", "--net")
"""In a network namespace of its own a command reaches nothing, not even this machine."""
NAMESPACES = shutil.which("unshare") is not None and subprocess.run([*NO_NETWORK, "true"], capture_output=True, check=False).returncode == 0


def run(folder: Path, *arguments: str, inside: tuple[str, ...] = (), forked: bool = False) -> subprocess.CompletedProcess[str]:
    """Run the experiment as `make` does, with `forked` without the time that its jobs' libraries take to import.

    Whether it may look for a network is left to the rules.
    """
    command = ["tools/run", CONFIG, *arguments]
    if forked and inside:
        command, more = with_forked_jobs(command)
    else:
        more = forks() if forked else {}
    return _run([*inside, *command], more, folder)


def run_with_first_jobs_alone(folder: Path, config: str, noted: Path) -> subprocess.CompletedProcess[str]:
    """Run another experiment so; the first job of each verb, noted in a folder, imports its libraries itself, as a user's jobs do."""
    return _run(["tools/run", config], forks(noted), folder)


def _run(command: Sequence[str], more: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if not name.endswith("_OFFLINE")} | more
    return subprocess.run(command, cwd=folder, env=own, capture_output=True, text=True, timeout=HANGS_AFTER_S, check=False)


def started(folder: Path, *, forked: bool = False) -> subprocess.Popen[bytes]:
    """Start the same as the head of a process group of its own, which can be killed as a whole; what it says goes to run.log.

    With `forked` its jobs are forks of the head, and in that group too.
    """
    command, more = with_forked_jobs(["tools/run", CONFIG]) if forked else (["tools/run", CONFIG], {})
    with (folder / "run.log").open("wb") as log:
        return subprocess.Popen(command, cwd=folder, env=os.environ | more, start_new_session=True, stdout=log, stderr=log)


def wait_for_orphans(folder: Path) -> None:
    """Wait for jobs that outlive a killed scheduler, as a user is told to: the same command would refuse to run beside them."""
    wait_until(lambda: not any(_environment(each).get("PAT_RUN_FOLDER") == str(folder) for each in psutil.process_iter()))


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        environment: dict[str, str] = process.environ()
        return environment
    except psutil.Error:
        return {}


def tables(folder: Path) -> dict[str, bytes]:
    """Return the tables' contents by name, without the sources' commit in cells.csv: who works on them commits while tests run.

    For the same reason the page of provenance stays out.
    """
    left_out = (MANIFEST, ".seal", "provenance.html")
    paths = [path for path in sorted((folder / RESULTS / "tables").iterdir()) if path.name not in left_out]
    return {path.name: _without_commit(path) if path.name == "cells.csv" else path.read_bytes() for path in paths}


def _without_commit(path: Path) -> bytes:
    lines = csv.DictReader(path.read_text().splitlines())
    kept = [name for name in lines.fieldnames or () if name not in COMMIT]
    assert len(kept) == len(lines.fieldnames or ()) - len(COMMIT)
    text = io.StringIO()
    table = csv.DictWriter(text, kept, extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    table.writerows(lines)
    return text.getvalue().encode()


def checkpoints(folder: Path) -> dict[str, str]:
    """Return the checksum of every file of every checkpoint that holds no time: weights, configs, tokenizers, adapters."""
    results = folder / RESULTS
    folders = [path.parent for path in sorted(results.rglob(MANIFEST)) if path.parent.name != "tables"]
    files = [path for each in folders for path in sorted(each.rglob("*")) if path.is_file() and path.name not in TIMED]
    return {path.relative_to(results).as_posix(): sha256(path) for path in files}
