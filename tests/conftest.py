"""For all tests: one thread, no network, and a copy of the workflow to run in, where a test needs one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
WORKFLOW_PARTS = ("Snakefile", "Makefile", "config", "tools", "workflow")
os.environ |= {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "PYTHONPATH": os.pathsep.join([str(ROOT / "workflow"), *filter(None, [os.environ.get("PYTHONPATH")])]),
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
}


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Equal settings give equal bytes for a fixed number of threads alone."""
    import torch

    torch.set_num_threads(1)


def copy_workflow(folder: Path) -> Path:
    """Copy what Snakemake needs into `folder`, without results, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in WORKFLOW_PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / part)
    (folder / "profiles").symlink_to("workflow/profiles")
    return folder


def snakemake(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Snakemake in `folder` to its end and return what it said."""
    command = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900, check=False)


def planned(folder: Path, raw: dict[str, Any]) -> set[str]:
    """Return the jobs that Snakemake would run for a changed experiment, as the rules' messages put them."""
    changed = folder / "config" / "changed.yaml"
    changed.write_text(yaml.safe_dump(raw))
    plan = snakemake(folder, "--dry-run", "--configfile", "config/changed.yaml")
    changed.unlink()  # the folder may be shared with tests of what is committed
    said = plan.stdout + plan.stderr
    assert plan.returncode == 0, said
    return {found.group(1) for line in said.splitlines() if (found := re.fullmatch(r"Job \d+: (.*)", line))}


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the workflow in which the smoke experiment has run to its end, without a network where the system can take it away.

    It is made once for all tests: copy it before changing anything.
    """
    from smoke_run import NAMESPACES, NO_NETWORK, run

    folder = copy_workflow(tmp_path_factory.mktemp("pipeline") / "finished")
    first = run(folder, inside=NO_NETWORK if NAMESPACES else ())
    assert first.returncode == 0, first.stdout + first.stderr
    return folder


@pytest.fixture(scope="session")
def workflow_copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the workflow that tests share for plans; it holds no results."""
    yield copy_workflow(tmp_path_factory.mktemp("workflow") / "copy")
