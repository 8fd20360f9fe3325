"""The health figure and its verdict, on hand-made histories."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib.image
import pandas as pd
import pytest
import torch
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from pat.errors import UserError
from pat.training.health import histogram, undecided
from study.figures import command, health
from study.figures.style import figure
from study.results.milestones import is_healthy, is_shock, verdict

runner = CliRunner()
app = typer.Typer()
app.command()(command.main)

HEALTH: dict[str, Any] = {"milestone_step": 100, "kept_at_milestone": 72, "loss_before_milestone": 0.50, "loss_after_milestone": 0.46}


def entry(step: int, masked: bool = True) -> dict[str, float | int | None]:
    """Return one logged step of a run of 96 channels whose milestone is step 100."""
    closed = step >= 100
    mask = {
        "identity_loss": 0.01, "active_loss": 0.0, "kept": 72, "mask_mean": 0.75 if closed else 0.9, "proxy_min": -0.3, "proxy_max": 0.3,
        "proxy_std": 0.2, "tau": None if closed else 3.0, "beta": 0.0 if closed else 0.1, "operator_distance": 0.01 * step,
        "down_moved": 0.1, "up_moved": 0.2, "instruct_gradient": 0.1, "identity_gradient": 0.0 if step == 50 else 1e-4,
    }  # fmt: skip
    losses = {"step": step, "loss": 0.6, "instruct_loss": 0.5, "learning_rate": 1e-3}
    return {**losses, **(mask if masked else dict.fromkeys(mask))}


def write_run(folder: Path, masked: bool = True, **changes: Any) -> Path:
    steps = [entry(step, masked) for step in (50, 100, 150)]
    record = {"hidden_size": 96, "width": 72 if masked else 96, "history": steps, "health": HEALTH if masked else None, **changes}
    path = folder / "tuning.json"
    path.write_text(json.dumps(record), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run's record and its figure beside something else; no test changes it."""
    folder = tmp_path_factory.mktemp("drawn")
    (folder / "mine.txt").write_text("mine")
    health.write_health(write_run(folder), "a run", folder)
    return folder


@pytest.mark.parametrize(("largest", "scale"), [(0.005, "linear"), (3.0, "symlog")])
def test_small_terms_of_the_loss_stand_on_an_axis_with_round_numbers(largest: float, scale: str) -> None:
    steps = [entry(step) | {"identity_loss": largest * step / 150} for step in (50, 100, 150)]
    with figure(7.0, 8.0) as drawing:
        health.draw({"hidden_size": 96, "width": 72, "health": HEALTH}, pd.DataFrame(steps), drawing, "run")
        drawing.draw_without_rendering()
        (terms,) = [axes for axes in drawing.axes if axes.get_title(loc="left").startswith("Other loss terms")]
    assert terms.get_yscale() == scale and all("times" not in label.get_text() for label in terms.get_yticklabels())


def test_a_calm_milestone_with_the_exact_count() -> None:
    sentence = verdict(HEALTH, width=72)
    assert sentence == "milestone at step 100: count exact (72 kept); no shock (cross-entropy 0.50 before, at most 0.46 after)"
    assert is_healthy(HEALTH, width=72) is True


@pytest.mark.parametrize(("before", "after"), [(0.11, 2.34), (0.82, 1.84), (2.2, 5.4)])
def test_the_shocks_that_were_seen_are_called_shocks(before: float, after: float) -> None:
    shocked = HEALTH | {"loss_before_milestone": before, "loss_after_milestone": after}
    assert "; SHOCK (" in verdict(shocked, width=72)
    assert is_healthy(shocked, width=72) is False


@given(st.floats(0, 10), st.floats(0, 10), st.floats(0, 5))
def test_a_worse_loss_after_is_never_less_of_a_shock(before: float, after: float, worse: float) -> None:
    assert is_shock(before, after) <= is_shock(before, after + worse)
    assert not is_shock(before, before)


def test_a_wrong_count_is_said() -> None:
    assert "COUNT OFF: 72 kept, 64 asked for" in verdict(HEALTH, width=64)
    assert is_healthy(HEALTH, width=64) is False


def test_gates_that_the_end_left_half_open_are_said() -> None:
    sentence = verdict(HEALTH | {"undecided": 90}, width=72)
    assert sentence.endswith("; UNDECIDED: 90 gates half open at the end, rounded in the merge")
    assert is_healthy(HEALTH | {"undecided": 90}, width=72) is False
    assert verdict(HEALTH | {"undecided": 0}, width=72) == verdict(HEALTH, width=72) and is_healthy(HEALTH | {"undecided": 0}, width=72)


@given(st.lists(st.floats(0, 1.5), min_size=1, max_size=40))
def test_gates_are_undecided_where_a_threshold_by_hand_says_so(gates: list[float]) -> None:
    near_an_edge = [gate for gate in gates if min(abs(gate - 0.15), abs(gate - 0.85)) < 1e-3]
    counted = undecided({"mask_histogram": histogram(torch.tensor(gates))})
    assert counted is not None and abs(counted - sum(0.15 < gate < 0.85 for gate in gates)) <= len(near_an_edge)
    assert undecided({}) is None


def test_runs_without_a_milestone_or_without_its_log() -> None:
    assert verdict(None, width=96) == "no milestone: nothing was pruned while tuning"
    unlogged = HEALTH | {"kept_at_milestone": None, "loss_after_milestone": None}
    assert "unknown" in verdict(unlogged, width=72)
    assert is_healthy(unlogged, width=72) is None


@pytest.mark.lengthy
@pytest.mark.parametrize("masked", [True, False])
def test_files_are_written_and_equal_runs_give_equal_bytes(tmp_path: Path, masked: bool) -> None:
    path = write_run(tmp_path, masked)
    for name in ("one", "two"):
        health.write_health(path, "a run", tmp_path / name)
    files = {file.name: file.read_bytes() for file in (tmp_path / "one").iterdir()}
    assert set(files) == {"health.csv", "health.png", "health.pdf"}
    assert files == {file.name: file.read_bytes() for file in (tmp_path / "two").iterdir()}
    assert b"CreationDate" not in files["health.pdf"]


def test_csv_holds_the_history(drawn: Path) -> None:
    frame = pd.read_csv(drawn / "health.csv")
    assert list(frame.columns) == list(health.HISTORY)
    assert list(frame["step"]) == [50, 100, 150]
    assert list(frame["kept"]) == [72, 72, 72]
    assert frame["tau"].isna().tolist() == [False, True, True]


def test_other_files_of_the_folder_stay(drawn: Path) -> None:
    assert (drawn / "mine.txt").read_text() == "mine"


def test_a_run_that_logged_no_step_is_drawn_as_such(tmp_path: Path) -> None:
    health.write_health(write_run(tmp_path, history=[]), "a run", tmp_path / "out")
    assert (tmp_path / "out" / "health.png").exists()
    assert pd.read_csv(tmp_path / "out" / "health.csv").empty


def test_a_broken_record_is_named_with_its_fault(tmp_path: Path) -> None:
    path = write_run(tmp_path, history=[{"loss": 1}])
    with pytest.raises(UserError, match="each have a step") as caught:
        health.read_run(path)
    assert str(path) in str(caught.value)


@pytest.mark.lengthy
def test_the_command_line_says_the_verdict_and_reports_errors_in_one_line(tmp_path: Path) -> None:
    path = write_run(tmp_path)
    good = runner.invoke(app, ["health", "--tuning", str(path), "--out", str(tmp_path / "out"), "--title", "tiny, PAT"])
    assert good.exit_code == 0
    assert good.stdout.startswith("tiny, PAT: milestone at step 100: count exact")
    assert good.stdout.strip().endswith("operators at the end ‖D − I‖ 1.50")
    path.write_text("{}")
    bad = runner.invoke(app, ["health", "--tuning", str(path), "--out", str(tmp_path / "out")])
    assert bad.exit_code == 1
    assert "lacks hidden_size, width, history, health" in bad.stderr and "Traceback" not in bad.stderr


def test_the_histogram_counts_every_channel_around_its_value() -> None:
    counts = histogram(torch.tensor([0.0, 0.04, 0.51, 1.0, 1.0, 1.5]))
    assert {place: count for place, count in enumerate(counts) if count} == {0: 2, 5: 1, 10: 2, 15: 1}


@pytest.mark.lengthy
def test_a_record_from_before_operators_were_watched_is_drawn_without_them(drawn: Path, tmp_path: Path) -> None:
    fields = ("operator_distance", "down_moved", "up_moved", "instruct_gradient", "identity_gradient")
    steps = [{name: value for name, value in entry(step).items() if name not in fields} for step in (50, 100, 150)]
    health.write_health(write_run(tmp_path, history=steps), "a run", tmp_path)
    frames = [pd.read_csv(folder / "health.csv") for folder in (drawn, tmp_path)]
    assert frames[0]["operator_distance"].tolist() == [0.5, 1.0, 1.5] and frames[1]["operator_distance"].isna().all()
    heights = [matplotlib.image.imread(folder / "health.png").shape[0] for folder in (drawn, tmp_path)]
    assert heights[0] > 1.2 * heights[1]


@pytest.mark.lengthy
def test_a_run_with_histograms_gets_their_panel_and_columns(tmp_path: Path) -> None:
    counts = [0] * 16
    counts[0], counts[10] = 24, 72
    path = write_run(tmp_path, history=[entry(step) | {"mask_histogram": counts} for step in (50, 100, 150)])
    health.write_health(path, "with histogram", tmp_path)
    frame = pd.read_csv(tmp_path / "health.csv")
    assert set(frame["mask 0.0"]) == {24} and set(frame["mask 1.0"]) == {72} and set(frame["mask 0.5"]) == {0}
    assert (tmp_path / "health.png").stat().st_size > 1000
