"""The demo's closing summary: plain facts with their doubts, on hand-made cells."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from typer.testing import CliRunner

from study.report import summary
from study.tables.writing import write_tables
from tests.kit.cell_maker import answered, cell, write_cell

runner = CliRunner()
app = typer.Typer()
app.command()(summary.main)


def shown(folder: Path, contents: list[dict[str, Any]], width: int = 200, terminal: bool = False) -> str:
    write_tables([write_cell(folder, content) for content in contents], folder / "tables")
    stream = StringIO()
    summary.show(folder, Console(file=stream, width=width, force_terminal=terminal))
    return stream.getvalue()


def scored(value: float) -> dict[str, dict[str, float]]:
    return {"capitals": {"first_capital": value}}


def test_differences_are_stated_with_interval_seeds_and_doubt(tmp_path: Path) -> None:
    contents = [
        cell("lora", 0.0, scores=scored(0.90)),
        cell("pat", 0.25, scores=scored(0.88)),
        cell("channel-magnitude-ftp", 0.25, scores=scored(0.30)),
    ]
    text = shown(tmp_path, contents)
    assert "tiny: LoRA − guessing: +65.0 ± 5.9 points (1 seed)\n" in text
    # √(0.9 × 0.1 / 100 + 0.88 × 0.12 / 100) × 1.95996 = 8.67 points
    assert "tiny: PAT at 25 % − LoRA at 0 %: −2.0 ± 8.7 points (1 seed); cannot be distinguished from 0\n" in text
    assert "tiny: PAT at 25 % − Channel magnitude FT→P at 25 %: +58.0 ± 11.0 points (1 seed)\n" in text


def test_a_difference_firm_over_seeds_may_still_be_luck_with_the_items(tmp_path: Path) -> None:
    contents = [cell(name, ratio, seed, scores=scored(value))
                for seed in range(3) for name, ratio, value in (("lora", 0.0, 0.9), ("pat", 0.25, 0.88 + 0.001 * seed))]  # fmt: skip
    assert "on other items it may be 0 (± 8." in shown(tmp_path, contents)


def test_where_items_are_known_they_are_paired(tmp_path: Path) -> None:
    rows = [("lora", 0.0, "1" * 90 + "0" * 10), ("pat", 0.25, "1" * 88 + "0" * 12)]
    contents = [cell(name, ratio, tasks=answered({"capitals": {"first_capital": right}})) for name, ratio, right in rows]
    # two items of a hundred differ: a standard error of 1.4 points, not the 4.4 of unpaired answers
    assert "−2.0 ± 2.5 points (1 seed); cannot be distinguished from 0" in shown(tmp_path, contents)


def test_milestones_and_merges_are_summed_up(tmp_path: Path) -> None:
    calm = {"milestone_step": 100, "kept_at_milestone": 72, "loss_before_milestone": 0.5, "loss_after_milestone": 0.5}
    contents = [cell(seed=0) | {"tuning": {"health": calm}},
                cell(seed=1) | {"tuning": {"health": calm | {"loss_after_milestone": 2.0}}, "logit_gap": 3e-5},
                cell("lora", 0.0) | {"tuning": {"health": None}, "logit_gap": None}]  # fmt: skip
    text = shown(tmp_path, contents)
    assert "exact count, no shock and every gate decided in 1 of 2 runs" in text
    assert "PAT at 25 %, seed 1: milestone at step 100: count exact (72 kept); SHOCK" in text
    assert "SHOCK: when the mask closed the loss rose by more than 0.1 nats and 20% of itself; usual where steps are few" in text
    assert "SHOCK" not in shown(tmp_path / "calm", contents[:1])
    assert "largest difference of a logit 3.0e-05 (over 2 models)" in text


def test_the_divergence_on_text_takes_the_place_of_the_logits(tmp_path: Path) -> None:
    text = shown(tmp_path, [cell(seed=0) | {"kl_on_text": 2e-5}, cell(seed=1) | {"kl_on_text": 3e-6}, cell("lora", 0.0)])
    assert "written models: KL on text at most 2.0e-05 nats per token (over 2 models)" in text and "of a logit" not in text


def test_an_experiment_without_lora_or_tasks_is_summed_up_too(tmp_path: Path) -> None:
    assert "guessing" in shown(tmp_path / "a", [cell()])
    assert "merge" in shown(tmp_path / "b", [cell() | {"tasks": {}}])


def test_an_experiment_without_tasks_shows_its_perplexities(tmp_path: Path) -> None:
    text = shown(tmp_path / "texts", [cell() | {"tasks": {}}, cell("lora", 0.0) | {"tasks": {}}])
    assert "perplexity of held-out text" in text and "12.50" in text
    assert "One seed: no interval." in text.split("Notes:")[1]
    assert "perplexity of held-out text" not in shown(tmp_path / "tasks", [cell()])
    guessed = shown(tmp_path / "guessed", [cell(scores={"capitals": {"first_capital": 0.2, "acc": 0.24}})])
    assert "mean accuracy" in guessed and "perplexity of held-out text" in guessed and "12.50" in guessed


def test_plain_text_has_no_escape_codes_and_a_terminal_gets_them(tmp_path: Path) -> None:
    assert "\x1b" not in shown(tmp_path / "a", [cell()])
    assert "\x1b" in shown(tmp_path / "b", [cell()], terminal=True)


def test_cells_of_an_earlier_grid_stay_out(tmp_path: Path) -> None:
    write_cell(tmp_path, cell("lora", 0.0) | {"experiment": "another"})
    write_cell(tmp_path, cell(ratio=0.5))
    text = shown(tmp_path, [cell(ratio=0.25)])
    assert "25 %" in text and "50 %" not in text and "LoRA" not in text


def test_a_folder_that_was_moved_is_summed_up_too(tmp_path: Path) -> None:
    shown(tmp_path / "here", [cell()])
    (tmp_path / "here").rename(tmp_path / "there")
    result = runner.invoke(app, ["--results", str(tmp_path / "there")])
    assert result.exit_code == 0 and "PAT" in result.stdout


def test_an_experiment_of_harness_tasks_alone_is_summed_up_too(tmp_path: Path) -> None:
    assert "merge" in shown(tmp_path, [cell() | {"tasks": {}, "perplexity": {}}])


def test_no_results_is_one_line(tmp_path: Path) -> None:
    result = runner.invoke(app, ["--results", str(tmp_path)])
    assert result.exit_code == 1
    assert "run the experiment first" in result.stderr and "Traceback" not in result.stderr
    missing = runner.invoke(app, ["--results", str(tmp_path / "missing")])
    assert missing.exit_code == 1 and missing.stderr == f"error: {tmp_path / 'missing'}: no such folder; name results/<experiment>\n"
