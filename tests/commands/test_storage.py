"""A disk that is full, or read-only, in every phase: one message that names the file, nothing finished is lost, and a way on."""

from __future__ import annotations

import errno
import json
import logging
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pat.data.items import write_items
from pat.errors import UserError
from pat.io.artefacts import check_folder, new_folder, write_jsonl, write_text
from pat.io.storage import refusal, writing
from pat.settings.jobs import TuneJob
from pat.training.tuning import tune
from tests.kit.cell_maker import cell, write_cell
from tests.kit.commands import outcome
from tests.kit.project import copy_workflow
from tests.kit.smoke_run import run
from tests.kit.tiny_checkpoint import some_items
from tests.kit.tiny_world import write_world
from tests.kit.tuning_requests import asked

TUNING = {"tuning": {"max_steps": 4, "learning_rate": 1e-3, "batch_size": 4, "checkpoint_steps": 2, "lora": {"rank": 2}}}
PRETRAIN = {
    "vocab_size": 300, "hidden_size": 32, "layers": 2, "heads": 2, "intermediate_size": 64, "context_length": 16, "steps": 2,
    "batch_size": 1, "learning_rate": 0.01, "checkpoint_steps": 1,
}  # fmt: skip
SIZE_BYTES, LEFT_BYTES = 8 * 2**20, 8 * 2**10
RUN = ("--run-dir", "<disk>/run", "--out", "<disk>/out")
PHASES = {
    "data": ("world", "--settings", '{"pretrain_texts": 300}', "--out", "<disk>/out"),
    "preparation": ("prepare-text", "--source", '{"source": "json", "path": "<w>/text.jsonl"}', "--out", "<disk>/out.jsonl"),
    "pretraining": ("pretrain", "--corpus", "<w>/text.jsonl", "--settings", json.dumps(PRETRAIN), *RUN),
    "import": ("import-model", "--path", "<w>/base", "--out", "<disk>/out"),
    "rotation": ("rotate", "--base", "<w>/base", "--basis", "pca", "--calibration", "<w>/text.jsonl", "--out", "<disk>/out"),
    "pruning": ("prune", "--base", "<w>/base", "--pruner", "channel-magnitude", "--ratio", "0.5", "--out", "<disk>/out"),
    "tuning": ("tune", "--base", "<w>/base", "--data", "<w>/instruct.jsonl", "--tuner", "lora", "--settings", json.dumps(TUNING), *RUN),
    "merging": ("merge", "--base", "<w>/base", "--adapter", "<w>/adapter", "--out", "<disk>/out"),
    "evaluation": ("evaluate", "--model", "<w>/base", "--settings", "{}", "--task", "<w>/task.jsonl", "--out", "<disk>/deep/out.json"),
    "tables": ("tables", "--out", "<disk>/out", "<w>/cell.json"),
    "figures": ("figure", "gate", "--out", "<disk>/out"),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the phases read."""
    folder = tmp_path_factory.mktemp("inputs")
    base, data = write_world(folder)
    tune(asked(base, data, "lora", 0.0, 0, TuneJob.model_validate(TUNING), folder / "run", folder / "adapter"))
    write_jsonl(folder / "text.jsonl", [{"text": f"{number} follows {number - 1}. " * 40} for number in range(40)])
    write_items(folder / "task.jsonl", some_items(64))
    write_cell(folder, cell()).rename(folder / "cell.json")
    return folder


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A small file system of its own, with a finished folder on it."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    mounted = tmp_path / "disk"
    mounted.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_BYTES}", "tmpfs", str(mounted)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a file system")
    try:
        with new_folder(mounted / "finished") as folder:
            write_text(folder / "result.txt", "kept")
        yield mounted
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


def fill(disk: Path) -> Path:
    """Leave next to nothing of the disk; return what to delete to have it back."""
    ballast = disk / "ballast"
    used = sum(path.stat().st_size for path in disk.rglob("*") if path.is_file())
    ballast.write_bytes(bytes(SIZE_BYTES - used - 4 * LEFT_BYTES))
    with pytest.raises(OSError, match="No space left"):
        for number in range(64):
            (disk / f"ballast{number}").write_bytes(bytes(4096))
    (disk / "ballast0").unlink()
    return ballast


def command(phase: str, inputs: Path, disk: Path) -> list[str]:
    """Return a phase's command line, which writes on the disk."""
    return [part.replace("<w>", str(inputs)).replace("<disk>", str(disk)) for part in PHASES[phase]]


@pytest.mark.parametrize("phase", PHASES)
def test_a_full_disk_is_one_message_and_the_same_command_goes_on(
    phase: str, inputs: Path, disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ballast = fill(disk)
    code, said = outcome(command(phase, inputs, disk), capsys)
    assert code == 1
    assert str(disk) in said and "the disk is full" in said
    check_folder(disk / "finished")
    assert not (disk / "out" / "manifest.json").exists()
    ballast.unlink()
    assert outcome(command(phase, inputs, disk), capsys)[0] in (0, None)


@pytest.mark.parametrize("phase", PHASES)
def test_a_read_only_disk_is_one_message(phase: str, inputs: Path, disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    code, said = outcome(command(phase, inputs, disk), capsys)
    assert code == 1
    assert str(disk) in said and "the disk is read-only" in said
    check_folder(disk / "finished")


def test_a_run_on_a_full_disk_says_so_and_goes_on(disk: Path, tmp_path: Path) -> None:
    folder = copy_workflow(tmp_path / "workflow")
    (folder / "results").symlink_to(disk)
    ballast = fill(disk)
    full = run(folder, "data")
    assert full.returncode != 0
    assert f"The disk of {folder}/results is full" in full.stderr
    ballast.unlink()
    assert run(folder, "data").returncode == 0
    check_folder(disk / "finished")


@pytest.mark.parametrize(
    ("number", "meaning"),
    [(errno.ENOSPC, "the disk is full"), (errno.EDQUOT, "quota"), (errno.EROFS, "read-only"), (errno.EACCES, "permission is missing")],
)
def test_refusals_say_what_to_do(number: int, meaning: str) -> None:
    said = str(refusal(OSError(number, "", "results/x")))
    assert said.startswith("results/x: ") and meaning in said and "call the same command again" in said


def test_an_error_that_is_not_the_disks_passes(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="a bug"), writing(tmp_path):
        raise RuntimeError("a bug")
    with pytest.raises(UserError, match=r"no such file"), writing(tmp_path):
        (tmp_path / "nothing").read_text()
