"""Tests of several processes: what all of them need is made once, and each has a copy of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from tests.kit.children import HANGS_AFTER_S
from tests.kit.made_once import made_or_copied
from tests.kit.project import ROOT


def test_what_all_need_is_made_by_the_first_and_copied_by_the_others(tmp_path: Path) -> None:
    made: list[str] = []
    under_way, go_on = threading.Event(), threading.Event()

    def make(folder: Path) -> None:
        made.append(folder.name)
        under_way.set()
        assert go_on.wait(HANGS_AFTER_S)
        folder.mkdir()
        (folder / "file").write_text("made")

    def ask(name: str) -> None:
        made_or_copied(tmp_path / name, tmp_path / "shared", make)

    first, other = (threading.Thread(target=ask, args=(name,)) for name in ("first", "other"))
    first.start()
    assert under_way.wait(HANGS_AFTER_S)
    other.start()
    other.join(0.2)
    assert other.is_alive(), "it waits for the first"
    go_on.set()
    first.join(HANGS_AFTER_S)
    other.join(HANGS_AFTER_S)
    assert made == ["first"]
    (tmp_path / "first" / "file").write_text("changed")
    assert (tmp_path / "other" / "file").read_text() == (tmp_path / "shared" / "file").read_text() == "made"


def test_after_a_failure_the_next_one_tries_itself(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        folder.mkdir()
        raise AssertionError("the run failed")

    for name in ("first", "other"):
        with pytest.raises(AssertionError, match="the run failed"):
            made_or_copied(tmp_path / name, tmp_path / "shared", fail)
        assert (tmp_path / name).is_dir()
    assert made_or_copied(tmp_path / "third", tmp_path / "shared", Path.mkdir).is_dir()


def test_each_process_computes_in_one_thread() -> None:
    assert torch.get_num_threads() == 1 == int(os.environ["OMP_NUM_THREADS"])


def test_pytest_says_the_last_line_of_make_test() -> None:
    options = re.search(r"^PARALLEL = (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert options is not None and "$(PARALLEL)" in (ROOT / "Makefile").read_text(encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--color=no", *options[1].replace("$(WORKERS)", "2").split()]
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command += [__file__, "-k", "the_first or a_failure or one_thread"]
    finished = subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    # From a minute on pytest adds the same time in minutes; on a busy machine these three tests took one.
    assert re.fullmatch(r"=+ 3 passed in [0-9.]+s( \([0-9:]+\))? =+", finished.stdout.splitlines()[-1])
