"""The folder of the project, and copies of the workflow to run in."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.kit.forked import run_module

ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "pyproject.toml").is_file())
WORKFLOW_PARTS = ("Snakefile", "Makefile", "config", "tools", "workflow")


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
    return run_module(["snakemake", "--cores", "2", *arguments], folder)


def planned(folder: Path, raw: dict[str, Any]) -> set[str]:
    """Return the jobs that Snakemake would run for a changed experiment, as the rules' messages put them."""
    changed = folder / "config" / "changed.yaml"
    changed.write_text(yaml.safe_dump(raw))
    plan = snakemake(folder, "--dry-run", "--configfile", "config/changed.yaml")
    changed.unlink()  # the folder may be shared with tests of what is committed
    said = plan.stdout + plan.stderr
    assert plan.returncode == 0, said
    return {found.group(1) for line in said.splitlines() if (found := re.fullmatch(r"Job \d+: (.*)", line))}
