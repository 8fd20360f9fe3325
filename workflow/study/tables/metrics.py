"""Writes what `dvc metrics diff`, `dvc exp show` and `dvc plots diff` compare: a row's mean accuracy and perplexity, in the fewest numbers.

A function of the cells' JSONs alone; the tables say the same with intervals and tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from pat.io.artefacts import write_json, write_text
from pat.io.places import WRITES, Force
from study.commands.errors import run_reporting_errors
from study.commands.places import Unmarked, guarded
from study.results.cells import Row, metrics_of, models_of, read_cells, rows_of
from study.results.grid import Grid, texts_of
from study.results.options import CellsOption, ListOption, MoreArgument, listed
from study.tables.accuracy import percent
from study.tables.harness import columns_of, of_column
from study.tables.layouts import csv_text

DIGITS = 6


class Metrics:
    """Means over tasks and seeds: accuracies in percent by every scoring, perplexities a UTF-8 byte, figures of lm-eval's tasks."""

    def __init__(self, paths: Sequence[Path]) -> None:
        cells = read_cells(paths)
        self.grids = {metric: Grid(cells, metric) for metric in metrics_of(cells)}
        self.grid = next(iter(self.grids.values()), Grid(cells, ""))
        self.texts = texts_of(cells)

    def _rows(self) -> Iterator[tuple[str, Row]]:
        for model in models_of(self.grid.cells):
            yield from ((model, row) for row in rows_of(self.grid.cells) if self.grid.members(model, row))

    def nested(self) -> dict[str, Any]:
        """Return model → row → ratio → name → number."""
        found: dict[str, Any] = {}
        for model, row in self._rows():
            accuracies = {metric: value for metric, grid in self.grids.items() if (value := _accuracy(grid, model, row)) is not None}
            perplexities = {text: value for text in self.texts if (value := self._perplexity(model, row, text)) is not None}
            own = self._harness(model, row)
            numbers = {**accuracies, **({"perplexity": perplexities} if perplexities else {}), **({"lm-eval": own} if own else {})}
            found.setdefault(model, {}).setdefault(row.method, {})[f"{100 * row.ratio:g}%"] = numbers
        return found

    def _harness(self, model: str, row: Row) -> dict[str, dict[str, float]]:
        """Return task → figure → number."""
        found: dict[str, dict[str, float]] = {}
        for task, figure in columns_of(self.grid):
            if (value := of_column(self.grid, model, row, (task, figure))) is not None:
                found.setdefault(task, {})[figure] = round(value.mean, DIGITS)
        return found

    def accuracies(self) -> pd.DataFrame:
        """Return row and accuracy, by the headline scoring."""
        lines = [(_named(model, row), _accuracy(self.grid, model, row)) for model, row in self._rows()]
        return pd.DataFrame([line for line in lines if line[1] is not None], columns=["row", "accuracy"])

    def perplexities(self) -> pd.DataFrame:
        """Return row and perplexity, a line a text."""
        lines = [
            (f"{_named(model, row)}, {text}", self._perplexity(model, row, text)) for model, row in self._rows() for text in self.texts
        ]
        return pd.DataFrame([line for line in lines if line[1] is not None], columns=["row", "perplexity"])

    def _perplexity(self, model: str, row: Row, text: str) -> float | None:
        value = self.grid.perplexity(model, row, text, "byte")
        return None if value is None else round(value.mean, DIGITS)


def _accuracy(grid: Grid, model: str, row: Row) -> float | None:
    value = grid.mean(model, row)
    return None if value is None else round(100 * value.mean, DIGITS)


def _named(model: str, row: Row) -> str:
    return f"{model}, {row.name}, {percent(row.ratio)}"


@guarded(Unmarked())
def main(
    out: Annotated[Path, typer.Option(help="The JSON to write."), WRITES],
    accuracy: Annotated[Path, typer.Option(help="The CSV of accuracies to write."), WRITES],
    perplexity: Annotated[Path, typer.Option(help="The CSV of perplexities to write."), WRITES],
    cells: CellsOption = None,
    cells_from: ListOption = None,
    more: MoreArgument = None,
    force: Force = False,
) -> None:
    """Write the numbers that version control compares."""

    def action() -> str:
        metrics = Metrics(listed(cells, more, cells_from))
        write_json(out, metrics.nested(), replace=force)
        write_text(accuracy, csv_text(metrics.accuracies(), digits=DIGITS), replace=force)
        write_text(perplexity, csv_text(metrics.perplexities(), digits=DIGITS), replace=force)
        return str(out)

    run_reporting_errors(action)
