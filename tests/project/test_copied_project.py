"""A copy of a finished project has nothing to do, though every file in it has another time: contents decide, also those of large files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.project import ROOT

RULES = """
rule all:
    input: "out.txt"

rule make:
    input: "data.jsonl"
    output: "out.txt"
    shell: "wc -c < {input} > {output}"
"""
LARGE_BYTES = 3 * 10**6
"""More than what Snakemake looks into by itself."""
NOTHING = "Nothing to be done"


def snakemake(folder: Path, *arguments: str) -> str:
    """Run Snakemake in a folder with our settings; return what it said."""
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--cores",
        "1",
        "--workflow-profile",
        str(ROOT / "workflow/profiles/default"),
        *arguments,
    ]
    finished = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout + finished.stderr


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A finished workflow of one job on a large file, in a folder of an awkward name."""
    folder = tmp_path / "ä b"
    folder.mkdir()
    (folder / "Snakefile").write_text(RULES)
    (folder / "data.jsonl").write_bytes(b"x" * LARGE_BYTES)
    snakemake(folder)
    return folder


def copied(folder: Path) -> Path:
    """Copy a project as `cp -r` does, the inputs after the outputs."""
    copy = Path(shutil.copytree(folder, folder.with_name("copy"), copy_function=shutil.copy, symlinks=True))
    output = (copy / "out.txt").stat().st_mtime_ns
    os.utime(copy / "data.jsonl", ns=(output + 10**9, output + 10**9))
    return copy


def test_a_copy_has_nothing_to_do(finished: Path) -> None:
    assert NOTHING in snakemake(finished, "--dry-run")
    assert NOTHING in snakemake(copied(finished), "--dry-run")


def test_a_changed_file_in_a_copy_is_noticed(finished: Path) -> None:
    copy = copied(finished)
    time_ns = (copy / "data.jsonl").stat().st_mtime_ns
    (copy / "data.jsonl").write_bytes(b"y" * LARGE_BYTES)
    os.utime(copy / "data.jsonl", ns=(time_ns, time_ns))
    assert NOTHING not in snakemake(copy, "--dry-run")
