"""What version control compares, on hand-made cells: means over seeds by every scoring, and nothing invented where a score is missing."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import typer
from typer.testing import CliRunner

from study.tables import metrics
from tests.kit.cell_maker import cell, write_cell

runner = CliRunner()
app = typer.Typer()
app.command()(metrics.main)


def written(folder: Path, contents: list[dict[str, Any]]) -> tuple[dict[str, Any], list[dict[str, str]], list[dict[str, str]]]:
    """Return the JSON and the two CSVs made from the cells."""
    paths = [str(write_cell(folder, content)) for content in contents]
    out, accuracy, perplexity = folder / "metrics.json", folder / "plots/accuracy.csv", folder / "plots/perplexity.csv"
    done = runner.invoke(app, ["--out", str(out), "--accuracy", str(accuracy), "--perplexity", str(perplexity), *paths])
    assert done.exit_code == 0, done.output
    lines = [list(csv.DictReader(path.read_text().splitlines())) for path in (accuracy, perplexity)]
    return json.loads(out.read_text()), lines[0], lines[1]


def test_means_are_over_tasks_and_seeds_by_every_scoring(tmp_path: Path) -> None:
    """Hand-worked: tasks 0.6 and 0.2 of one seed, 0.8 and 0.4 of the other, have the mean 50 percent."""
    first, second = ({"a": {"first_capital": x}, "b": {"first_capital": x - 0.4, "acc": 0.25}} for x in (0.6, 0.8))
    perplexities = {"heldout": {"token_perplexity": 9.0, "byte_perplexity": 2.25}}
    cells = [cell(seed=0, scores=first), cell(seed=1, scores=second) | {"perplexity": perplexities}, cell("lora", 0.0, scores=first)]
    nested, accuracies, found = written(tmp_path, cells)
    assert nested["tiny"]["pat"] == {"25%": {"first_capital": 50.0, "acc": 25.0, "perplexity": {"heldout": 2.0}}}
    assert {line["row"]: float(line["accuracy"]) for line in accuracies} == {"tiny, LoRA, 0 %": 40.0, "tiny, PAT, 25 %": 50.0}
    assert {line["row"]: float(line["perplexity"]) for line in found} == {
        "tiny, LoRA, 0 %, heldout": 1.75, "tiny, PAT, 25 %, heldout": 2.0,
    }  # fmt: skip


def test_what_was_not_measured_is_left_out_and_the_files_are_there(tmp_path: Path) -> None:
    nested, accuracies, _ = written(tmp_path / "texts", [cell() | {"tasks": {}}])
    assert nested["tiny"]["pat"]["25%"] == {"perplexity": {"heldout": 1.75}}
    assert accuracies == []
    nested, _, perplexities = written(tmp_path / "tasks", [cell() | {"perplexity": {}}])
    assert set(nested["tiny"]["pat"]["25%"]) == {"first_capital", "acc"}
    assert perplexities == []
