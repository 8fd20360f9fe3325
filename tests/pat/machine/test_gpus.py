"""Jobs side by side take the GPUs of a machine in turn, and leave them when they end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pat.machine import gpus

HOLD = "import sys; from pathlib import Path; from pat.machine import gpus; print(gpus.take_one(sys.argv[2:], Path(sys.argv[1])), flush=True); input()"


def holder(folder: Path, *names: str) -> tuple[subprocess.Popen[str], str]:
    """Start a process that takes a GPU and keeps it until its input ends; return it and what it took."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), *names],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def test_living_jobs_spread_and_a_dead_one_leaves_its_place(tmp_path: Path) -> None:
    started = [holder(tmp_path / "locks", "2", "5") for _ in range(3)]
    try:
        assert [taken for _, taken in started] == ["2", "5", "2"]
        second, _ = started[1]
        second.kill()
        second.wait()
        started.append(holder(tmp_path / "locks", "2", "5"))
        assert started[-1][1] == "5", "two jobs live on the first GPU, none on the second"
    finally:
        for process, _ in started:
            process.kill()
            process.communicate()


@pytest.mark.parametrize(("names", "taken"), [([], ""), (["3"], "3")])
def test_without_a_choice_nothing_is_locked(names: list[str], taken: str, tmp_path: Path) -> None:
    assert gpus.take_one(names, tmp_path / "locks") == taken
    assert not (tmp_path / "locks").exists()


def test_where_no_lock_can_lie_the_first_gpu_is_taken(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert gpus.take_one(["0", "1"], tmp_path / "file" / "locks") == "0"


@pytest.mark.parametrize(("given", "seen"), [(None, ["0", "1"]), ("3, 4", ["3", "4"]), ("", [])])
def test_the_environment_names_the_gpus_else_their_device_files_do(
    given: str | None, seen: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    monkeypatch.setattr(gpus, "DEVICE_FILES", tmp_path)
    if given is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert gpus.visible() == seen
