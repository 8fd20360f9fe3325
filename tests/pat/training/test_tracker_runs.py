"""A tuning's run in W&B and MLflow: named, told its settings, one through kills, ended as the job ended, in the run folder, offline.

What is asked of the packages is held to stand-ins everywhere, and to the packages themselves where they are installed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from types import SimpleNamespace
from typing import Any

import pytest

from pat.errors import UserError
from pat.io.locks import acquire
from pat.training.request import TuningRequest
from pat.training.resume import checkpoint_of, job_identity
from pat.training.tracker_runs import tracked
from tests.kit.tiny_world import write_world
from tests.kit.tuning_requests import asked
from tests.kit.tunings import adapter_bytes, job, run, run_until

VARIABLES = ("WANDB_", "MLFLOW_", "TENSORBOARD_")


class Wandb(SimpleNamespace):
    """As much of W&B as opens and ends a run."""

    class Error(Exception):
        """Base of what it raises."""

    def __init__(self) -> None:
        super().__init__(run=None, asked=[], ended=[], problem=None)

    def init(self, **given: Any) -> SimpleNamespace:
        if self.problem:
            raise self.Error(self.problem)
        self.asked.append(given)
        return SimpleNamespace(id=given["id"] or f"new{len(self.asked)}", finish=self._finish)

    def _finish(self, exit_code: int) -> None:
        self.ended.append(exit_code)


class Mlflow(SimpleNamespace):
    """As much of MLflow as opens and ends a run."""

    MlflowException = KeyError

    def __init__(self) -> None:
        super().__init__(asked=[], ended=[], params={}, stores=[], gone=False, lacks=None)

    def active_run(self) -> None:
        return None

    def is_tracking_uri_set(self) -> bool:
        return "MLFLOW_TRACKING_URI" in os.environ

    def get_tracking_uri(self) -> str:
        return os.environ["MLFLOW_TRACKING_URI"]

    def set_experiment(self, name: str) -> None:
        if self.lacks:
            raise ModuleNotFoundError(f"No module named {self.lacks!r}")
        self.experiment = name
        self.stores.append((os.environ["MLFLOW_TRACKING_URI"], os.environ["MLFLOW_DISABLE_TELEMETRY"]))

    def start_run(self, run_id: str | None = None, run_name: str | None = None) -> SimpleNamespace:
        self.asked.append(run_id or run_name)
        if run_id and self.gone:
            raise self.MlflowException(f"Run '{run_id}' not found")
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id or f"new{len(self.asked)}"))

    def log_params(self, params: dict[str, object]) -> None:
        self.params |= params

    def flush_async_logging(self) -> None: ...

    def end_run(self, status: str) -> None:
        self.ended.append(status)


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(VARIABLES)]:
        monkeypatch.delenv(name)


@pytest.fixture
def request_of(tmp_path: Path) -> TuningRequest:
    """A request that asks for both; its run folder and inputs are there, as they are once it has been checked."""
    (tmp_path / "base").mkdir()
    (tmp_path / "rows.jsonl").touch()
    (tmp_path / "run").mkdir()
    return asked(tmp_path / "base", tmp_path / "rows.jsonl", "pat", 0.25, 7, job(report_to=["wandb", "mlflow"]), tmp_path / "run")


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> tuple[Wandb, Mlflow]:
    """Both packages, as they are imported."""
    found = Wandb(), Mlflow()
    for name, module in zip(("wandb", "mlflow"), found, strict=True):
        monkeypatch.setitem(sys.modules, name, module)
    return found


@contextmanager
def _broken_off(request: TuningRequest, error: type[BaseException]) -> Iterator[None]:
    with pytest.raises(error), tracked(request):
        yield
        raise error


def test_a_run_is_named_told_its_settings_and_kept_in_the_run_folder(request_of: TuningRequest, stand_ins: tuple[Wandb, Mlflow]) -> None:
    wandb, mlflow = stand_ins
    with tracked(request_of):
        assert (wandb.ended, mlflow.ended) == ([], [])
    (told,) = wandb.asked
    assert (told["project"], told["dir"], told["id"]) == ("pruning-aware-tuning", str(request_of.run_dir), None)
    assert told["name"] == mlflow.asked[0] and "test_a_run_is_named" in told["name"]
    assert told["config"]["seed"] == mlflow.params["seed"] == 7 and mlflow.params["pat.hio_rank"] == told["config"]["pat"]["hio_rank"] == 3
    assert mlflow.stores == [(f"sqlite:///{request_of.run_dir}/mlflow.db", "true")] and "MLFLOW_TRACKING_URI" not in os.environ
    assert (wandb.ended, mlflow.ended) == ([0], ["FINISHED"])


def test_the_trackers_own_variables_go_before(
    request_of: TuningRequest, stand_ins: tuple[Wandb, Mlflow], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"WANDB_DIR": "/w", "WANDB_PROJECT": "p", "MLFLOW_TRACKING_URI": "http://m", "MLFLOW_EXPERIMENT_NAME": "e"}.items():
        monkeypatch.setenv(name, value)
    with tracked(request_of):
        pass
    wandb, mlflow = stand_ins
    assert (wandb.asked[0]["dir"], wandb.asked[0]["project"], mlflow.stores[0][0], mlflow.experiment) == ("/w", "p", "http://m", "e")


def test_a_job_that_was_broken_off_goes_on_with_its_runs_and_another_does_not(
    request_of: TuningRequest, stand_ins: tuple[Wandb, Mlflow], tmp_path: Path
) -> None:
    wandb, mlflow = stand_ins
    with _broken_off(request_of, KeyboardInterrupt):
        pass
    with _broken_off(request_of, UserError):
        pass
    assert [given["id"] for given in wandb.asked] == [None, "new1"] and wandb.asked[1]["resume"] == "allow"
    assert mlflow.asked[1] == "new1"
    assert (wandb.ended, mlflow.ended) == ([1, 1], ["KILLED", "FAILED"])
    other = asked(tmp_path / "base", tmp_path / "rows.jsonl", "pat", 0.25, 8, request_of.job, tmp_path / "run")
    with tracked(other):
        checkpoint_of(other.run_dir, job_identity(other))
    assert wandb.asked[2]["id"] is None and mlflow.asked[2] != "new1"


def test_jobs_open_a_store_that_is_a_file_one_at_a_time(
    request_of: TuningRequest, stand_ins: tuple[Wandb, Mlflow], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/all/mlflow.db")
    (tmp_path / "all").mkdir()
    other = acquire(tmp_path / "all" / ".mlflow.db.lock")
    opened_before: list[str] = []

    def end_other() -> None:
        opened_before.extend(stand_ins[1].asked)
        assert other is not None
        other.release(remove=True)

    Timer(0.5, end_other).start()
    with tracked(request_of):
        assert opened_before == [] and stand_ins[1].asked
    assert list((tmp_path / "all").iterdir()) == []


def test_a_run_that_the_store_no_longer_has_is_opened_anew(request_of: TuningRequest, stand_ins: tuple[Wandb, Mlflow]) -> None:
    _, mlflow = stand_ins
    with _broken_off(request_of, KeyboardInterrupt):
        mlflow.gone = True
    with tracked(request_of):
        pass
    assert mlflow.asked[1] == "new1" and mlflow.asked[2] == mlflow.asked[0]


def test_a_tracker_that_cannot_open_a_run_is_told_in_one_sentence_and_leaves_nothing(
    request_of: TuningRequest, stand_ins: tuple[Wandb, Mlflow], monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_ins[0].problem = "No API key configured. Use `wandb login` to log in.\nmore"
    with pytest.raises(UserError) as caught, tracked(request_of):
        raise AssertionError("must not begin")
    assert str(caught.value) == (
        "tuning.report_to: wandb cannot open a run (No API key configured. Use `wandb login` to log in); WANDB_MODE=offline keeps the run "
        "in its run folder, or leave the name out"
    )
    assert list(request_of.run_dir.iterdir()) == []
    stand_ins[0].problem, stand_ins[1].lacks = None, "alembic"
    with pytest.raises(UserError) as caught, tracked(request_of):
        raise AssertionError("must not begin")
    assert str(caught.value) == (
        "tuning.report_to: mlflow cannot open a run (No module named 'alembic'); a store of its own needs the whole package: "
        "pip install mlflow, or leave the name out"
    )
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"tuning\.report_to: wandb is installed but cannot be imported \("), tracked(request_of):
        raise AssertionError("must not begin")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny base and its rows, in a working directory that is to stay empty."""
    write_world(tmp_path)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def test_wandb_itself_keeps_one_run_offline(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    settings = job(report_to=["wandb"])
    run_until(16, world, "adapter", monkeypatch, settings=settings)
    run(world, "adapter", settings=settings)
    run(world, "untold")
    assert adapter_bytes(world / "adapter") == adapter_bytes(world / "untold")
    files = list((world / "run-adapter" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len({file.name for file in files}) == 1 and len(files) == 2, "two parts of one run"
    for file in files:
        for word in (b"train/kept", b"train/mask_mean", b'"hio_rank":3', b"run-adapter", b"pruning-aware-tuning"):
            assert word in file.read_bytes(), word
    assert list((world / "here").iterdir()) == []


def test_mlflow_itself_keeps_one_run_in_its_file(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    settings = job(report_to=["mlflow"])
    run_until(16, world, "adapter", monkeypatch, settings=settings)
    record = run(world, "adapter", settings=settings)
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{world}/run-adapter/mlflow.db")
    experiment = client.get_experiment_by_name("pruning-aware-tuning")
    (found,) = client.search_runs([experiment.experiment_id])
    assert (found.info.status, found.data.params["seed"], found.data.params["pat.hio_rank"]) == ("FINISHED", "7", "3")
    for figure in ("kept", "instruct_loss"):
        told = [(each.step, each.value) for each in client.get_metric_history(found.info.run_id, figure)]
        assert told == [(entry["step"], entry[figure]) for entry in record["history"]]
    assert list((world / "here").iterdir()) == []


def test_tensorboard_itself_reads_one_run(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    settings = job(report_to=["tensorboard"])
    run_until(16, world, "adapter", monkeypatch, settings=settings)
    record = run(world, "adapter", settings=settings)
    events = reader.EventAccumulator(str(world / "run-adapter" / "runs"))
    events.Reload()
    assert [each.step for each in events.Scalars("train/kept")] == [entry["step"] for entry in record["history"]]
    assert "settings/text_summary" in events.Tags()["tensors"] and list((world / "here").iterdir()) == []
