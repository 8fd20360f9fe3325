"""A job of several processes ends as one of a single process does: with its own words and its own status, whatever ended it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pat.io import progress
from tests.kit.children import HANGS_AFTER_S, child, wait_for
from tests.kit.tiny_world import write_world

TWO = (sys.executable, "-m", "pat.machine.several", "2")


@contextmanager
def started(*command: str) -> Iterator[subprocess.Popen[str]]:
    """Within this context a command runs in a process group of its own, as at a terminal; a group that still runs at the end is killed."""
    with child([*TWO, *command], start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("script", "status", "said"),
    [
        ("test $MASTER_ADDR = 127.0.0.1", 0, ""),  # where they meet; the machine's own name may lead nowhere
        ("echo error: no such file; exit 3", 3, "error: no such file"),
        ("kill -9 $$", 137, "of the job was ended by SIGKILL"),
    ],
)
def test_the_status_and_the_words_are_those_of_the_command(script: str, status: int, said: str) -> None:
    with started("sh", "-c", f"test $RANK = 0 || sleep 1; {script}") as process:
        told, _ = process.communicate(timeout=HANGS_AFTER_S)
    assert process.returncode == status, told
    assert said in told and "Traceback" not in told and "torch" not in told
    assert len(told.splitlines()) <= 2


def test_ctrl_c_leaves_no_word_of_the_launcher(tmp_path: Path) -> None:
    with started("sh", "-c", f"touch '{tmp_path}/'$RANK; exec sleep {2 * HANGS_AFTER_S}") as process:
        wait_for(lambda: (tmp_path / "0").exists() and (tmp_path / "1").exists(), process)
        os.killpg(process.pid, signal.SIGINT)
        said, _ = process.communicate(timeout=HANGS_AFTER_S)
    assert (process.returncode, said) == (130, "")


@pytest.mark.parametrize("arguments", [[], ["2"], ["0", "true"], ["x", "true"], ["-1", "true"]])
def test_a_wrong_call_is_told_the_right_one_before_torch_is_imported(arguments: list[str]) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "pat.machine.several", *arguments]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    *imported, said = finished.stderr.splitlines()
    assert finished.returncode == 1 and said.startswith("usage: ")
    assert {"signal", "torch"} & {line.rpartition("|")[2].strip() for line in imported} == {"signal"}


def test_of_several_processes_the_main_one_says_that_it_was_interrupted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        for rank, lines in (("0", 1), ("1", 0)):
            for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": rank}.items():
                monkeypatch.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                progress.interrupted("tune")
            assert ended.value.code == 130 and len(capsys.readouterr().err.splitlines()) == lines
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN, "a second one would end it in a traceback"
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.slow
def test_ctrl_c_in_a_tuning_says_one_line_and_the_same_command_goes_on(tmp_path: Path) -> None:
    write_world(tmp_path)
    settings = {"tuning": {"max_steps": 3000, "learning_rate": 1e-3, "batch_size": 4, "checkpoint_steps": 2, "lora": {"rank": 2}}}
    places = [
        f"--{name}={tmp_path / file}" for name, file in {"base": "base", "data": "instruct.jsonl", "run-dir": "run", "out": "out"}.items()
    ]
    command = ("pat", "tune", "--tuner", "lora", *places, "--settings", json.dumps(settings), f"--log={tmp_path / 'log'}")
    with started(*command) as process:
        wait_for(lambda: list((tmp_path / "run").glob("checkpoint-*")), process)
        os.killpg(process.pid, signal.SIGINT)
        said, _ = process.communicate(timeout=HANGS_AFTER_S)
    assert process.returncode == 130 and "Traceback" not in said
    assert said.splitlines()[-1] == "pat tune: interrupted; the same command begins again, or goes on from its last checkpoint"
