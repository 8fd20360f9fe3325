"""Whose mistake an error is: a user's is one message, ours keeps its traceback; and what a library call leaves behind, which is nothing."""

from __future__ import annotations

import errno
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

from pat import cli
from pat.data.items import write_items
from pat.errors import SettingError, UserError
from pat.io.storage import is_refusal
from pat.machine import processes
from pat.machine.gpus import take_one
from pat.machine.threads import threads_given_back
from pat.models.width import target_width
from pat.scoring import harness
from pat.settings.config import PatConfig
from pat.settings.gpu_need import ON_GPU_VERBS, may_need_gpu
from pat.settings.jobs import TuneJob
from pat.training.tuning import tune
from study.commands import errors as script_errors
from study.plan.failures import reasons
from tests.kit.tiny_checkpoint import some_items, write_tiny_checkpoint
from tests.kit.tiny_world import write_world
from tests.kit.tuning_requests import asked

OUT = ["merge", "--base", "base", "--adapter", "adapter", "--out", "/results/out"]
CUDA_FAULT = RuntimeError("CUDA error: an illegal memory access was encountered")


def os_error(number: int, path: str | None) -> OSError:
    return OSError(number, os.strerror(number), path) if path else OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("error", "is_users"),
    [
        (os_error(errno.ENOENT, "base/config.json"), True),
        (os_error(errno.ENOTDIR, "/results/out/x"), True),
        (os_error(errno.EACCES, "/results"), True),
        (os_error(errno.EACCES, "/results/.out.12.tmp/x"), True),
        (os_error(errno.ENOSPC, None), True),
        (os_error(errno.EIO, "/proc/whatever"), True),
        (os_error(errno.ENOENT, "/opt/pat/templates/card.md"), False),
        (os_error(errno.ENOENT, None), False),
        (OSError("We could not connect"), False),
        (ConnectionError("refused"), False),
    ],
)
def test_the_system_s_refusal_of_what_was_named_is_the_users_and_nothing_else(error: OSError, is_users: bool) -> None:
    assert is_refusal(error, OUT) == is_users


@pytest.mark.parametrize("error", [CUDA_FAULT, OSError("no words"), ValueError("ours"), KeyError("ours"), os_error(errno.ENOENT, "/ours")])
def test_a_mistake_of_ours_keeps_its_traceback(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))

    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("pat.checkpoints.merge.merge", broken)
    with pytest.raises(type(error)):
        cli.main(OUT)


@pytest.mark.parametrize("error", [CUDA_FAULT, ValueError("ours\nand more")])
def test_the_log_of_a_job_keeps_the_traceback_and_ends_with_the_error(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a run that has failed looks for the reason: it found the last of the job's lines."""
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(logging.getLogger(), "handlers", [])

    def broken(*_: object, **__: object) -> None:
        logging.getLogger("pat").info("at work")
        raise error

    monkeypatch.setattr("pat.checkpoints.merge.merge", broken)
    log = tmp_path / "merge.log"
    with pytest.raises(type(error)):
        cli.main([*OUT, "--log", str(log)])
    (tmp_path / "snakemake.log").write_text(f"Error in rule merge:\n    jobid: 1\n    log: {log} (check log file(s) for error details)\n")
    assert reasons(tmp_path / "snakemake.log").splitlines()[1:] == [f"merge: {type(error).__name__}: {str(error).splitlines()[0]} ({log})"]
    assert "Traceback (most recent call last)" in log.read_text() and "in broken" in log.read_text()


def test_a_script_s_own_mistake_keeps_its_traceback_too(tmp_path: Path) -> None:
    def raises(error: Exception) -> Callable[[], str]:
        def action() -> str:
            raise error

        return action

    with pytest.raises(typer.Exit):
        script_errors.run_reporting_errors(raises(os_error(errno.ENOENT, str(tmp_path / "in.json"))))
    for error in (os_error(errno.ENOENT, str(Path(cli.__file__).with_name("ours"))), os_error(errno.ENOENT, None), OSError("ours")):
        with pytest.raises(OSError, match=re.escape(str(error))):
            script_errors.run_reporting_errors(raises(error))
    with pytest.raises(KeyError):
        script_errors.run_reporting_errors(raises(KeyError("ours")))


class FakeManager:
    """A task manager whose load raises, or that has every task there is."""

    all_tasks = ("arc_easy",)

    def __init__(self, error: Exception | None) -> None:
        self.error = error

    def load(self, names: list[str]) -> dict[str, Any]:
        if self.error:
            raise self.error
        return {}


@pytest.mark.parametrize("error", [ConnectionError("no network"), ValueError("no cache"), RuntimeError("scripts are not supported")])
def test_data_that_cannot_be_loaded_is_the_missing_network(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "TaskManager", lambda: FakeManager(error))
    with pytest.raises(UserError, match="the data of arc_easy cannot be loaded"):
        harness.harness_variants(None, ["arc_easy"], None, 0)


@pytest.mark.parametrize("error", [CUDA_FAULT, OSError("of a kernel's cache"), ValueError("shapes")])
def test_a_fault_while_the_model_is_asked_is_no_missing_network(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: object) -> None:
        raise error

    monkeypatch.setattr(harness, "TaskManager", lambda: FakeManager(None))
    monkeypatch.setattr(harness, "simple_evaluate", broken)
    with pytest.raises(type(error)) as caught:
        harness.harness_variants(None, ["arc_easy"], None, 0)
    assert caught.value is error


def test_a_setting_that_cannot_be_is_a_typed_error_that_is_a_value_error_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in (lambda: PatConfig(pruning_ratio=2.0), lambda: target_width(64, 8, 1.5, "auto"), lambda: target_width(8, 8, 0.5, 8)):
        with pytest.raises(SettingError) as caught:
            wrong()
        assert isinstance(caught.value, UserError) and isinstance(caught.value, ValueError)
    base, data = write_world(tmp_path)
    recipe = {"max_steps": 2, "learning_rate": 1e-3, "batch_size": 4, "lora": {"rank": 2}}
    job = TuneJob.model_validate({"tuning": recipe, "pat": {"hio_rank": 2, "milestone_fraction": 0.5}})
    with pytest.raises(UserError, match=r"tuning\.max_steps: .* it must be 2 at least"):
        tune(asked(base, data, "pat", 0.5, 0, job, tmp_path / "run", tmp_path / "out"))

    def ours(*_: object, **__: object) -> None:
        raise ValueError("a mistake that names PatConfig")

    monkeypatch.setattr("pat.training.trainer.PatTrainer.train", ours)
    with pytest.raises(ValueError, match="a mistake") as raised:
        tune(asked(base, data, "lora", 0.0, 0, job, tmp_path / "run", tmp_path / "out"))
    assert not isinstance(raised.value, UserError)


LIBRARY_CALL = """
import os, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
before = dict(os.environ)
from pat.scoring.evaluation import evaluate
from pat.settings.jobs import EvaluationSettings
model, task, out = map(Path, sys.argv[1:])
evaluate(model, [task], [], EvaluationSettings(device="cpu", max_new_tokens=2, threads=2), 0, out)
import huggingface_hub.constants
assert not huggingface_hub.constants.HF_HUB_OFFLINE
changed = {name for name in before.keys() | os.environ.keys() if before.get(name) != os.environ.get(name)}
print(changed, torch.get_num_threads())
"""


def test_a_library_call_leaves_environment_and_threads_as_they_were(tmp_path: Path) -> None:
    model = write_tiny_checkpoint(tmp_path / "model")
    write_items(tmp_path / "toy.jsonl", some_items(2))
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TQDM", "TOKENIZERS"))}
    command = [sys.executable, "-c", LIBRARY_CALL, str(model), str(tmp_path / "toy.jsonl"), str(tmp_path / "out.json")]
    finished = subprocess.run(command, env=clean, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    changed, threads = finished.stdout.strip().splitlines()[-1].rsplit(" ", 1)
    assert "HF_HUB_OFFLINE" not in changed and "HF_DATASETS_OFFLINE" not in changed and int(threads) == 1


def test_threads_are_given_back_however_a_job_ends() -> None:
    before = torch.get_num_threads()

    @threads_given_back
    def job(fails: bool) -> int:
        torch.set_num_threads(before + 1)
        if fails:
            raise UserError("no")
        return torch.get_num_threads()

    assert job(False) == before + 1 and torch.get_num_threads() == before
    with pytest.raises(UserError):
        job(True)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("arguments", "needs"),
    [
        (["validate", "x.yaml"], False),
        (["explain", "results"], False),
        (["merge", "--base", "x"], False),
        (["import-model"], False),
        (["no-such-verb"], False),
        ([], False),
        (["tune", "--base", "x"], True),
        (["evaluate"], True),
        (["prune", "--calibration", "text.jsonl", "--device", "auto"], True),
        (["prune", "--calibration=text.jsonl", "--device", "cpu"], False),
        (["prune", "--pruner", "channel-magnitude"], False),
        (["rotate", "--device=cpu"], False),
        (["rotate", "--device", "cpu", "--device", "cuda"], True),
        (["rotate", "--help"], False),
        (["tune", "--settings", '{"tuning": {"device": "cpu"}}'], False),
        (["tune", '--settings={"tuning": {"device": "cpu"}}'], False),
        (["tune", "--settings", '{"device": "cpu"}'], True),
        (["tune", "--settings", '{"tuning": {"device": "auto"}}'], True),
        (["tune", "--settings", '{"tuning": ["cpu"]}'], True),
        (["tune", "--settings", "tuning.yaml"], False),
        (["search-rate", "--settings", "tuning.yaml"], False),
        (["tune", "--settings", "missing.yaml"], True),
        (["tune", "--settings", "broken.yaml"], True),
        (["tune", "--settings", "tuning.yaml", "--settings", "broken.yaml"], True),
        (["evaluate", "--settings", "plain.yaml"], False),
        (["pretrain", "--settings", "plain.yaml"], False),
        (["benchmark", "inference", "--settings", "plain.yaml"], False),
        (["benchmark", "merge"], True),
    ],
)
def test_verbs_of_the_cpu_take_no_gpu(arguments: list[str], needs: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {"tuning": "tuning: {device: cpu}", "plain": "device: cpu", "broken": "tuning: {device: cpu"}.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    assert may_need_gpu(arguments) == needs
    taken: list[list[str]] = []

    def take_one(names: list[str]) -> str:
        taken.append(names)
        return names[-1]

    monkeypatch.setattr(os, "environ", {"CUDA_VISIBLE_DEVICES": "0,1"})
    monkeypatch.setattr("pat.machine.gpus.take_one", take_one)
    processes.stand_alone(gpu=may_need_gpu(arguments))
    assert bool(taken) == needs
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ("1" if needs else "")


def test_every_verb_is_known_to_need_a_gpu_or_not() -> None:
    verbs = {command.name or command.callback.__name__.replace("_", "-") for command in cli.app.registered_commands if command.callback}
    on_cpu = {"validate", "import-model", "fetch-tasks", "merge", "sizes", "explain", "export", "push", "tasks", "encode"}
    assert verbs | {"benchmark"} == on_cpu | set(ON_GPU_VERBS)


def test_parts_of_a_gpu_whose_names_have_slashes_are_locked_one_by_one(tmp_path: Path) -> None:
    names = ["MIG-GPU-11-22/1/0", "MIG-GPU-11-22/2/0"]
    assert [take_one(names, tmp_path / "locks") for _ in range(3)] == [*names, names[0]]
    assert len(list((tmp_path / "locks").iterdir())) == 3
