"""Git and DVC workspaces around a finished smoke run, for the tests of versioning. Holds no assertion of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.kit.children import HANGS_AFTER_S
from tests.kit.forked import run_module
from tests.kit.project import ROOT
from tests.kit.smoke_run import CONFIG

MODULE = (sys.executable, "-m")
VERSIONED = ("pat", "dvc.yaml", ".dvcignore", ".gitignore")


def call(folder: Path, *command: str, expect: int | None = 0, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command in `folder` as its own copy of the project sees it; raise AssertionError unless it ends with the status `expect`."""
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{folder / 'workflow'}", "PYTHONDONTWRITEBYTECODE": "1", **more}
    if command[:2] == MODULE:
        finished = run_module(list(command[2:]), folder, environment)
    else:
        finished = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=HANGS_AFTER_S, check=False)
    said = f"{' '.join(command)}: {finished.returncode}\n{finished.stdout}{finished.stderr}"
    assert expect is None or finished.returncode == expect, said
    return finished


def dvc(folder: Path, *arguments: str, expect: int | None = 0, **more: str) -> subprocess.CompletedProcess[str]:
    """Run DVC in `folder`."""
    return call(folder, *MODULE, "dvc", *arguments, expect=expect, **more)


def restore(folder: Path, expect: int = 0, **more: str) -> str:
    """Restore the smoke experiment in `folder` and return what was said."""
    finished = call(folder, *MODULE, "study", "restore", CONFIG, expect=expect, **more)
    return finished.stdout + finished.stderr


def commit(folder: Path, message: str) -> None:
    """Commit all there is."""
    call(folder, "git", "add", "--all")
    call(folder, "git", "-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "--quiet", "--message", message)


def versioned(finished: Path, folder: Path, remote: Path) -> Path:
    """Make a git and DVC workspace of a finished run, its results locked and committed but not pushed; `remote` is where they will go."""
    shutil.copytree(finished, folder, symlinks=True)
    for name in VERSIONED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    (folder / ".dvc").mkdir()
    for name in ("config", ".gitignore"):
        shutil.copy(ROOT / ".dvc" / name, folder / ".dvc" / name)
    phases = folder / "dvc.yaml"
    phases.write_text(phases.read_text().replace("experiments: [demo]", "experiments: [smoke]"))
    call(folder, "git", "init", "--quiet")
    dvc(folder, "remote", "modify", "local", "url", str(remote))
    commit(folder, "the experiment")
    dvc(folder, "commit", "--force")
    commit(folder, "its results")
    return folder


def clone(workspace: Path, folder: Path) -> Path:
    """Clone a workspace without its results."""
    call(workspace, "git", "clone", "--quiet", str(workspace), str(folder))
    return folder


def objects(remote: Path) -> list[Path]:
    """Return the files that lie in a local remote, the largest last."""
    return sorted((path for path in remote.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
