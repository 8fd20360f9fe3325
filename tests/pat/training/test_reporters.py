"""Trackers beside the log: none unless asked for, a missing package is told before anything is read, and what is logged reaches them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from pat.errors import UserError
from pat.settings.jobs import TuneJob
from pat.training import reporters
from pat.training.training_arguments import training_arguments
from tests.kit.tiny_world import write_world
from tests.kit.tuning_requests import asked
from tests.kit.tunings import job, run

WRITER = """
import json, pathlib
class SummaryWriter:
    def __init__(self, log_dir):
        self.file = pathlib.Path(log_dir, "scalars.jsonl")
        self.file.parent.mkdir(parents=True, exist_ok=True)
    def add_scalar(self, name, value, step):
        with self.file.open("a") as stream:
            stream.write(json.dumps([name, value, step]) + chr(10))
    def add_text(self, *given): pass
    def flush(self): pass
    def close(self): pass
"""
"""As much of tensorboardX as the Trainer calls."""


def test_nothing_is_told_to_anyone_unless_it_is_asked_for(tmp_path: Path) -> None:
    request = asked(tmp_path, tmp_path / "rows.jsonl", "pat", 0.25, 0, job(), tmp_path / "run")
    assert training_arguments(request, tmp_path, "cpu").report_to == []
    assert "report_to" not in request.settings["tuning"], "records of earlier versions keep their hash"  # type: ignore[operator]


@pytest.mark.parametrize("names", [["wandb"], ["mlflow", "wandb"]])
def test_a_tracker_is_passed_on_to_the_trainer(names: list[str], tmp_path: Path) -> None:
    request = asked(tmp_path, tmp_path / "rows.jsonl", "pat", 0.25, 0, job(report_to=names), tmp_path / "run")
    arguments = training_arguments(request, tmp_path / "run", "cpu")
    assert (arguments.report_to, arguments.run_name) == (names, str(tmp_path / "run"))


def test_an_unknown_tracker_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="report_to") as caught:
        TuneJob.model_validate(job().model_dump() | {"tuning": job().tuning.model_dump() | {"report_to": ["comet"]}})
    assert "'tensorboard', 'wandb' or 'mlflow'" in str(caught.value)


def test_a_missing_package_is_told_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporters, "find_spec", lambda _name: None)
    with pytest.raises(UserError) as caught:
        run(tmp_path, "adapter", settings=job(report_to=["tensorboard", "mlflow"]))  # there is no base model here
    assert str(caught.value) == ("tuning.report_to: needs tensorboard and mlflow: pip install tensorboard mlflow, or leave the name out")
    assert not (tmp_path / "run-adapter").exists()


@pytest.mark.lengthy
def test_what_is_logged_reaches_the_tracker_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "tensorboardX.py").write_text(WRITER)
    monkeypatch.syspath_prepend(tmp_path / "packages")
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # the one that may be installed
    write_world(tmp_path)
    record = run(tmp_path, "adapter", settings=job(report_to=["tensorboard"]))
    (file,) = (tmp_path / "run-adapter").glob("runs/*/scalars.jsonl")
    told = [json.loads(line) for line in file.read_text().splitlines()]
    for figure in ("instruct_loss", "kept", "learning_rate"):
        logged = [[entry["step"], entry[figure]] for entry in record["history"]]
        assert [[step, value] for name, value, step in told if name == f"train/{figure}"] == logged
    again = run(tmp_path, "adapter", settings=job(report_to=["tensorboard"]))  # its run folder holds the tracker's files
    assert again["history"] == record["history"]
