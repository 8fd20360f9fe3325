"""Run folders and bases: one job at a time, nothing of another's is gone on from or lost, and an adapter is merged onto its own base alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from pat.checkpoints.merge import merge
from pat.errors import UserError
from pat.io import artefacts
from pat.io.resume_folder import check_run_folder, enter, leave, locked
from pat.settings.jobs import TuneJob
from pat.training.tuning import tune
from tests.kit.children import child, wait_for
from tests.kit.fuzz_workspace import Ended, ended, quiet_process
from tests.kit.tiny_world import write_world
from tests.kit.tuning_requests import asked

SETTINGS = {"tuning": {"max_steps": 4, "learning_rate": 1e-3, "batch_size": 4, "checkpoint_steps": 2, "lora": {"rank": 2}}}


def command(folder: Path, out: str, **tuning: object) -> list[str]:
    """Return a tuning's command line, all of whose checkpoints lie in one folder."""
    settings = {"tuning": {**SETTINGS["tuning"], **tuning}}
    places = ["--base", folder / "base", "--data", folder / "instruct.jsonl", "--run-dir", folder / "run", "--out", folder / out]
    return [sys.executable, "-m", "pat", "tune", "--tuner", "lora", "--settings", json.dumps(settings), *map(str, places)]


def here(folder: Path, words: list[str]) -> Ended:
    """Run a command in this process."""
    with quiet_process(folder):
        return ended(words[words.index("tune") :])


def test_of_two_equal_jobs_at_once_one_is_told(tmp_path: Path) -> None:
    write_world(tmp_path)
    endless = command(tmp_path, "out", max_steps=100_000)
    with child(endless, stderr=subprocess.PIPE) as first:
        wait_for(lambda: list((tmp_path / "run").glob("checkpoint-*/manifest.json")), first)
        for second in (endless, command(tmp_path, "other", learning_rate=0.5)):
            told = here(tmp_path, second)
            assert told.code == 1 and told.error is None
            assert f"another job is at work in it (process {first.pid} on " in told.said
        assert first.poll() is None, "the first goes on"
        first.kill()
        first.wait()
    finished = here(tmp_path, command(tmp_path, "out"))
    assert finished.code == 0, f"a killed job's lock holds nobody up: {finished.said} {finished.error}"
    assert "kept in" in finished.said, "the first job had other settings"


def test_a_locked_folder_is_free_once_the_job_has_ended_or_failed(tmp_path: Path) -> None:
    run_dir = tmp_path / "deep" / "run"
    with locked(run_dir):
        with pytest.raises(UserError, match="another job is at work"), locked(run_dir):
            pass
        enter(run_dir, {"rate": 1})
        leave(run_dir)
    assert not run_dir.exists()
    with pytest.raises(RuntimeError), locked(run_dir):
        raise RuntimeError
    with locked(run_dir):
        pass


def test_what_is_not_a_jobs_stays_when_it_ends(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    with locked(run_dir):
        enter(run_dir, {"rate": 1})
        (run_dir / "checkpoint-2").mkdir()
        (run_dir / "notes.txt").write_text("put here meanwhile")
        leave(run_dir)
    assert [path.name for path in run_dir.iterdir()] == ["notes.txt"]
    with pytest.raises(UserError, match=r"notes\.txt"):
        check_run_folder(run_dir)


def test_checkpoints_of_somebody_elses_training_are_no_run_folder(tmp_path: Path) -> None:
    """A stock Trainer's folder looks like one of ours, but says no job."""
    (tmp_path / "run" / "checkpoint-500").mkdir(parents=True)
    with pytest.raises(UserError, match=r"no job\.json"), locked(tmp_path / "run"):
        pass
    assert (tmp_path / "run" / "checkpoint-500").exists()


def test_a_kill_while_checkpoints_are_put_aside_loses_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = {"checkpoint-2", "checkpoint-4"}
    for survives in range(3):
        run_dir = tmp_path / str(survives)
        run_dir.mkdir()
        enter(run_dir, {"rate": 1})
        for name in steps:
            artefacts.write_text(run_dir / name / "state", name)
        moved = 0

        def rename(path: Path, target: Path, last: int = survives) -> Path:
            nonlocal moved
            if moved == last:
                raise KeyboardInterrupt
            moved += 1
            return Path(shutil.move(path, target))

        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(Path, "rename", rename)
            enter(run_dir, {"rate": 2})
        check_run_folder(run_dir)
        enter(run_dir, {"rate": 2})
        assert not list(run_dir.glob("checkpoint-*"))
        enter(run_dir, {"rate": 1})
        assert {path.name for path in run_dir.glob("checkpoint-*")} == steps


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuned")
    base, data = write_world(folder)
    tune(asked(base, data, "lora", 0.0, 0, TuneJob.model_validate(SETTINGS), folder / "run", folder / "adapter"))
    return folder


def swapped(folder: Path) -> None:
    """Put other weights of the same shape, size and time in a base's place."""
    weights = folder / "model.safetensors"
    time_ns = weights.stat().st_mtime_ns
    save_file({name: tensor.flip(0) for name, tensor in load_file(weights).items()}, weights, metadata={"format": "pt"})
    import os

    os.utime(weights, ns=(time_ns, time_ns))


@pytest.mark.parametrize("listed", [False, True])
def test_an_adapter_is_merged_onto_the_base_it_was_tuned_on_and_no_other(tuned: Path, tmp_path: Path, listed: bool) -> None:
    base = Path(shutil.copytree(tuned / "base", tmp_path / "moved elsewhere"))
    if listed:
        artefacts.seal(base)
    merge(base, tuned / "adapter", tmp_path / "merged")
    (base / "manifest.json").unlink(missing_ok=True)
    swapped(base)
    if listed:
        artefacts.seal(base)
    with pytest.raises(UserError, match="give that very base"):
        merge(base, tuned / "adapter", tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()


def test_an_adapter_of_no_record_is_merged_as_before(tuned: Path, tmp_path: Path) -> None:
    adapter = Path(shutil.copytree(tuned / "adapter", tmp_path / "adapter"))
    for name in ("manifest.json", "tuning.json"):
        (adapter / name).unlink()
    assert merge(tuned / "base", adapter, tmp_path / "merged")["logit_gap"] <= 1e-4


def test_a_base_swapped_with_its_size_and_time_is_another_base(tuned: Path, tmp_path: Path) -> None:
    from pat.training.resume import identity_of

    base = Path(shutil.copytree(tuned / "base", tmp_path / "base"))
    before = identity_of(base)
    swapped(base)
    assert identity_of(base) != before
