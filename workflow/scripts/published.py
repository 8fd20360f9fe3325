"""The paper's printed numbers (workflow/published/*.csv), looked up by our names. Data only: no number is typed into code."""

from __future__ import annotations

import csv
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "published"


class Table1:
    """Table 1 of the paper: mean accuracy over its 14 tasks, in percent, first-capital scoring."""

    metric = "first_capital"

    def __init__(self, folder: Path = FOLDER) -> None:
        self._models = {line["model"]: line["paper_model"] for line in _read(folder / "models.csv")}
        self._rows = {
            (line["row"], line["base_method"]): (line["paper_method"], line["paper_mode"])
            for line in _read(folder / "rows.csv")
            if line["table"] == "table1"
        }
        self._cells = {
            (line["method"], line["mode"], float(line["pruning_ratio"]), model): float(value)
            for line in _read(folder / "table1_zero_shot.csv")
            for model, value in line.items()
            if model not in ("pruning_ratio", "method", "mode")
        }

    def lookup(self, model: str, row: str, base_method: str, ratio: float) -> float | None:
        """Return the paper's number in percent for one of our cells, None where the paper has no such cell."""
        method, mode = self._rows.get((row, base_method), ("", ""))
        return self._cells.get((method, mode, ratio, self._models.get(model, "")))


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))
