"""A tuning of two processes computes what one does with the same batch; every other verb is one process, whatever it inherits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from pat.errors import UserError
from pat.io.artefacts import check_folder
from pat.machine import processes
from pat.settings.jobs import TuneJob, TuningSettings
from pat.training.request import Arm
from pat.training.training_arguments import training_arguments
from tests.kit.children import HANGS_AFTER_S
from tests.kit.forked import forks
from tests.kit.tiny_world import write_world
from tests.kit.tunings import RECIPE

LEAKED = {
    "RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9",
    "PMI_SIZE": "4", "PMI_RANK": "1", "OMPI_COMM_WORLD_SIZE": "4", "SLURM_NTASKS": "4", "SLURM_PROCID": "1",
}  # fmt: skip
TWO = (sys.executable, "-m", "pat.machine.several", "2")


def tune(folder: Path, name: str, launcher: tuple[str, ...] = (), environment: dict[str, str] | None = None, **changes: Any) -> str:
    """Run `pat tune` on the world in `folder` to its end and return what it said."""
    settings = {"tuning": RECIPE | {"lora": {"rank": 2, "alpha": 4.0, "dropout": 0.0}} | changes, "pat": {"hio_rank": 3}}
    tuner = ["--tuner", "pat", "--ratio", "0.25", "--seed", "7", "--settings", json.dumps(settings)]
    places = ["--base", folder / "base", "--data", folder / "instruct.jsonl", "--run-dir", folder / f"run-{name}", "--out", folder / name]
    command = [*launcher, "pat", "tune", *tuner, *map(str, places), "--log", str(folder / f"{name}.log")]
    finished = subprocess.run(
        command, env=os.environ | forks() | (environment or {}), capture_output=True, text=True, timeout=HANGS_AFTER_S, check=False
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout + finished.stderr


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_two_processes_tune_as_one_does(compiled: bool, tmp_path: Path) -> None:
    """Same rows in every batch, so the same losses, mask and weights but for the order of sums; before and after the milestone.

    The one process inherits a batch system's ranks and must not wait for the others.
    """
    write_world(tmp_path)
    tune(tmp_path, "one", environment=LEAKED, micro_batch_size=2)
    said = tune(tmp_path, "two", TWO, micro_batch_size=2, compile=compiled)
    one, two = (json.loads((tmp_path / name / "tuning.json").read_text()) for name in ("one", "two"))
    assert (one["processes"], two["processes"]) == (1, 2) and (one["compiled"], two["compiled"]) == (False, compiled)
    assert [entry["step"] for entry in two["history"]] == [entry["step"] for entry in one["history"]]
    for ours, theirs in zip(two["history"], one["history"], strict=True):
        for field in ("loss", "instruct_loss", "identity_loss", "mask_mean", "proxy_std"):
            assert ours[field] == pytest.approx(theirs[field], rel=1e-4, abs=1e-6), field
        assert ours["kept"] == theirs["kept"]
    check_folder(tmp_path / "two")
    assert not (tmp_path / "run-two").exists()
    for file in ("adapter_model.safetensors", "hsm.safetensors"):
        expected, found = load_file(tmp_path / "one" / file), load_file(tmp_path / "two" / file)
        assert set(found) == set(expected)
        assert max(float((found[name].float() - expected[name].float()).abs().max()) for name in expected) < 1e-4
    assert said.count("done") == 1, "the main process speaks for both"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A copy of the environment that a test may change."""
    copied = dict(os.environ)
    monkeypatch.setattr(os, "environ", copied)
    return copied


@pytest.mark.parametrize(("given", "seen"), [("2,3", "2"), ("0", "0"), ("", ""), (None, "0")])
def test_a_lone_process_forgets_all_others_and_sees_one_gpu(
    given: str | None, seen: str, environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pat.machine.gpus.DEVICE_FILES", tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    environment |= LEAKED | {processes.LAUNCHER_MARK: "x"} | ({} if given is None else {"CUDA_VISIBLE_DEVICES": given})
    if given is None:
        environment.pop("CUDA_VISIBLE_DEVICES", None)
    processes.stand_alone()
    assert set(environment).isdisjoint(name for name in LEAKED if not name.startswith("SLURM_"))
    assert environment["CUDA_VISIBLE_DEVICES"] == seen
    assert processes.is_main() and processes.count() == 1


def test_ranks_count_only_where_a_launcher_started_the_process(environment: dict[str, str]) -> None:
    environment |= LEAKED
    assert processes.is_main() and processes.count() == 1
    environment[processes.LAUNCHER_MARK] = "x"
    assert not processes.is_main() and processes.count() == 4


def test_more_processes_than_gpus_are_refused(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    environment |= LEAKED | {processes.LAUNCHER_MARK: "x"}
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(UserError, match="4 processes for 2 GPUs"):
        processes.join("cuda")


@pytest.mark.parametrize(("batch", "micro"), [(6, None), (8, 4)])
def test_a_batch_that_the_processes_cannot_share_is_refused(
    batch: int, micro: int | None, environment: dict[str, str], tmp_path: Path
) -> None:
    environment |= {processes.LAUNCHER_MARK: "x", "WORLD_SIZE": "4", "RANK": "0"}
    job = TuneJob(tuning=TuningSettings(max_steps=1, learning_rate=1e-3, batch_size=batch, micro_batch_size=micro))
    with pytest.raises(UserError, match=f"tuning.batch_size={batch}: must be a multiple of micro_batch_size × processes"):
        training_arguments(Arm(tuner="lora", ratio=0.0, seed=0, job=job), tmp_path, "cpu")
