"""Trackers beside the log: none unless asked for, a missing package is told before anything is read, and what is logged reaches them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from pat.errors import UserError
from pat.settings.jobs import TuneJob
from pat.training import reporters
from pat.training.reporters import run_name
from pat.training.training_arguments import training_arguments
from tests.kit.tiny_world import write_world
from tests.kit.tuning_requests import asked
from tests.kit.tunings import job, run, run_until

WRITER = """
import json, pathlib
class SummaryWriter:
    def __init__(self, log_dir, purge_step):
        folder = pathlib.Path(log_dir)
        folder.mkdir(parents=True, exist_ok=True)
        self.texts, self.file = folder / "texts.json", folder / f"scalars-{len(list(folder.glob('scalars*')))}-from-{purge_step}.jsonl"
    def add_scalar(self, name, value, step):
        with self.file.open("a") as stream:
            stream.write(json.dumps([name, value, step]) + chr(10))
    def add_text(self, name, text, *given):
        if name == "settings":
            self.texts.write_text(text)
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
    assert (arguments.report_to, arguments.run_name) == (names, run_name(tmp_path / "run"))


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("results/mine/checkpoints/tiny/pat-early/0.25/seed0/run", "mine/tiny/pat-early/0.25/seed0"),
        ("../runs/first", "runs/first"), ("run-7", "run-7"), ("run", "run"),
    ],
)  # fmt: skip
def test_a_run_is_named_after_its_folder_without_what_every_run_has(folder: str, name: str) -> None:
    assert run_name(Path(folder)) == run_name(Path.cwd() / folder) == name


def test_a_folder_that_a_tracker_left_is_not_taken_for_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tracks_of_runs").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(reporters.PACKAGES, "wandb", ("tracks_of_runs",))
    assert reporters.missing_reporters(["wandb"]) == ["tracks_of_runs"]
    (tmp_path / "tracks_of_runs" / "__init__.py").touch()
    assert reporters.missing_reporters(["wandb"]) == []


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
    for name in ("tensorboard", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)  # the one that may be installed
    write_world(tmp_path)
    settings = job(report_to=["tensorboard"])
    run_until(16, tmp_path, "adapter", monkeypatch, settings=settings)
    record = run(tmp_path, "adapter", settings=settings)
    killed, resumed = sorted((tmp_path / "run-adapter" / "runs").glob("scalars-*.jsonl"))
    assert [killed.name, resumed.name] == ["scalars-0-from-1.jsonl", "scalars-1-from-17.jsonl"], "one run, told again from there"
    told = [json.loads(line) for file in (killed, resumed) for line in file.read_text().splitlines()]
    for figure in ("instruct_loss", "kept", "learning_rate"):
        logged = [[entry["step"], entry[figure]] for entry in record["history"]]
        assert [[step, value] for name, value, step in told if name == f"train/{figure}"] == logged
    asked_for = json.loads((tmp_path / "run-adapter" / "runs" / "texts.json").read_text())
    assert (asked_for["seed"], asked_for["ratio"], asked_for["pat"]["hio_rank"]) == (7, 0.25, 3)
    again = run(tmp_path, "adapter", settings=settings)  # its run folder holds the tracker's files
    assert again["history"] == record["history"]
