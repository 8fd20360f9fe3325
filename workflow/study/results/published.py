"""The paper's printed numbers (workflow/published/*.csv), looked up by our names. Data only: no number is typed into code."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from study.experiment.table_settings import ZERO_SHOT, AccuracyTable, Factor

FOLDER = Path(__file__).resolve().parents[2] / "published"
PRINTED: Mapping[AccuracyTable, str] = {"table1": "table1_zero_shot.csv", "table3": "table3_downstream.csv"}
"""The paper's tables of methods, by our tables' names."""
METRIC = "first_capital"
"""How the paper scored."""


class Printed:
    """Table 1 or 3 of the paper: mean accuracy over its tasks, in percent, first-capital scoring."""

    metric = METRIC

    def __init__(self, table: AccuracyTable) -> None:
        self.number = int(table.removeprefix("table"))
        self._models, self._rows = _paper_models(), _paper_rows(table)
        self._cells = {
            (line["method"], line.get("mode", ""), float(line["pruning_ratio"]), model): float(value)
            for line in _read(PRINTED[table])
            for model, value in line.items()
            if model not in ("pruning_ratio", "method", "mode")
        }

    def lookup(self, model: str, row: str, base_method: str, ratio: float) -> float | None:
        """Return the paper's number in percent for one of our cells, None where the paper has no such cell."""
        method, mode = self._rows.get((row, base_method), ("", ""))
        return self._cells.get((method, mode, ratio, self._models.get(model, "")))


class PrintedAblation:
    """Table 2 of the paper, looked up by row and factors: its columns `trainable_mask` and `identity_loss`, yes or no.

    Its accuracies are zero-shot: beside those of an experiment of another table it has none.
    """

    number = 2
    _others = ("model", "pruning_ratio", "method", "accuracy")

    def __init__(self, beside: AccuracyTable) -> None:
        self._models, self._rows = _paper_models(), _paper_rows("table2")
        self._cells = {
            (line["model"], line["method"], float(line["pruning_ratio"]), self._factors(line)): float(line["accuracy"])
            for line in (_read("table2_ablation.csv") if beside == ZERO_SHOT else [])
        }

    def _factors(self, line: Mapping[str, str]) -> frozenset[tuple[str, Factor]]:
        given = {name.replace("_", " "): value for name, value in line.items() if name not in self._others and value}
        return frozenset((name, value == "yes") for name, value in given.items())

    def lookup(self, model: str, row: str, base_method: str, ratio: float, factors: Mapping[str, Factor]) -> float | None:
        """Return the paper's number in percent, None where it has no cell of exactly these factors."""
        method, _ = self._rows.get((row, base_method), ("", ""))
        return self._cells.get((self._models.get(model, ""), method, ratio, frozenset(factors.items())))


class PrintedTrainable:
    """What the text around figure 4 prints: accuracy, zero-shot, and share of trainable parameters of single rows.

    Beside the accuracies of an experiment of another table it has none.
    """

    metric = METRIC

    def __init__(self, beside: AccuracyTable) -> None:
        self._models = _paper_models()
        self._lines = _read("figure4_trainable.csv") if beside == ZERO_SHOT else []

    def lookup(self, model: str, ratio: float) -> list[dict[str, object]]:
        """Return the rows printed for one model and ratio: label, trainable_share and accuracy, both in 0..1."""
        return [
            {"label": it["row"], "trainable_share": float(it["trainable_share"]), "accuracy": float(it["accuracy"]) / 100}
            for it in self._lines
            if it["model"] == self._models.get(model) and float(it["pruning_ratio"]) == ratio
        ]


class PrintedSpeedup:
    """The speed-up of the first token that the paper prints for single models and ratios."""

    def __init__(self) -> None:
        self._models = _paper_models()
        self._values = {(it["model"], float(it["pruning_ratio"])): float(it["speedup"]) for it in _read("figure6_speedup.csv")}

    def lookup(self, model: str, ratio: float) -> float | None:
        """Return the paper's number for a model's shape at an effective ratio, None where it prints none."""
        return self._values.get((self._models.get(model, ""), round(ratio, 3)))


def _paper_models() -> dict[str, str]:
    return {line["model"]: line["paper_model"] for line in _read("models.csv")}


def _paper_rows(table: str) -> dict[tuple[str, str], tuple[str, str]]:
    """Return (row, base_method): (method, mode) as the paper's table calls them."""
    lines = [line for line in _read("rows.csv") if line["table"] == table]
    return {(line["row"], line["base_method"]): (line["paper_method"], line["paper_mode"]) for line in lines}


def _read(name: str) -> list[dict[str, str]]:
    with (FOLDER / name).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))
