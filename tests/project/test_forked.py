"""What a fork of the tests' server does is what `python -m` does, and it has imported nothing of the project before."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.forked import forks, run_module

PROBE = """
import os, signal, sys
print(__name__, sys.argv[1:], os.getcwd(), os.environ.get("ASKED"), sys.path[:2], sys.stdin.read())
print([name for name in ("pat", "study") if name in sys.modules], file=sys.stderr)
import study
print(study.__file__)
WAYS = {"ends": lambda: None, "status": lambda: sys.exit(3), "words": lambda: sys.exit("error: no"), "fails": lambda: 1 / 0,
        "killed": lambda: os.kill(os.getpid(), signal.SIGKILL)}
WAYS[sys.argv[1]]()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "probe.py").write_text(PROBE)
    return tmp_path


@pytest.mark.parametrize(("way", "status"), [("ends", 0), ("status", 3), ("words", 1), ("fails", 1), ("killed", -9)])
def test_it_ends_and_speaks_as_python_does(way: str, status: int, folder: Path) -> None:
    environment = {**os.environ, "ASKED": "here", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "probe", way]
    expected = subprocess.run(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    found = run_module(["probe", way], folder, environment)
    assert found.returncode == expected.returncode == status
    assert found.stderr.splitlines()[0] == "[]" and found.stderr.splitlines()[-1] == expected.stderr.splitlines()[-1]
    if way != "killed":  # what it has not written by then is lost
        assert found.stdout == expected.stdout and f"__main__ ['{way}'] {folder} here" in found.stdout


def test_of_a_run_the_commands_of_the_project_alone_are_forks_and_where_asked_not_the_first_of_a_verb(tmp_path: Path) -> None:
    """Their parent is the server, in which libraries are: a job that began by itself would have none."""
    (tmp_path / "noted").mkdir()
    for name in ("study", "other"):
        (tmp_path / name).write_text("import os, sys; print(sys.argv[1], os.getppid() == int(os.environ['SHELL_OF_JOB']))")
    study, other = (f"'{sys.executable}' '{tmp_path}/{name}'" for name in ("study", "other"))
    as_asked = [f"{study} one", f"{study} two", f"{study} one", f"{other} one"]
    script = ["export SHELL_OF_JOB=$$", *as_asked, "unset PAT_TESTS_FIRST", f"{study} three", f"{other} three", "exit 4"]
    command = ["sh", "-c", "; ".join(script)]
    said = subprocess.run(command, env=os.environ | forks(tmp_path / "noted"), capture_output=True, text=True, check=False)
    alone = ["one True", "two True", "one False", "one True", "three False", "three True"]
    assert (said.returncode, said.stdout.splitlines()) == (4, alone), said.stderr
