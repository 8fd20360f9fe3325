"""From cells to estimates: the mean of the tasks, single tasks and perplexities of every model and row, seeds pooled.

Owns what is averaged over what. Sits between cells.py and the tables and figures, which only lay its numbers out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from pat.errors import UserError
from study.experiment.table_settings import Factor
from study.results.cells import Cell, Losses, Row, Unit, metrics_of, models_of, read_cells, rows_of, tasks_of
from study.statistics.intervals import Estimate, Measured, binomial_error, estimate, mean_standard_error


class Grid:
    """The cells of one experiment under one metric, of `tasks` alone where given; every answer is None where the grid has a hole."""

    def __init__(self, cells: Sequence[Cell], metric: str, tasks: Sequence[str] | None = None) -> None:
        self.cells = cells
        self.metric = metric
        self.tasks = tasks_of(cells, metric) if tasks is None else list(tasks)
        self.seeds = sorted({cell.seed for cell in cells})
        self._members: dict[tuple[str, Row], list[Cell]] = {}
        for cell in cells:
            self._members.setdefault((cell.model, cell.row), []).append(cell)

    def members(self, model: str, row: Row) -> list[Cell]:
        """Return the seeds of one model and row, in the order of their numbers."""
        return self._members.get((model, row), [])

    def factors(self, row: Row) -> dict[str, Factor]:
        """Return a row's place in the ablation tables; empty where it has none."""
        return next((cell.factors for cell in self.cells if cell.row == row), {})

    def seed_means(self, model: str, row: Row) -> dict[int, Measured]:
        """Return seed: (plain mean over all tasks, its standard error over items); a cell that lacks a task is left out."""
        means: dict[int, Measured] = {}
        for cell in self.members(model, row):
            known = [score for task in self.tasks if (score := self._score(cell, task)) is not None]
            if known and len(known) == len(self.tasks):
                means[cell.seed] = (fmean(value for value, _ in known), mean_standard_error([error for _, error in known]))
        return means

    def _score(self, cell: Cell, task: str) -> Measured | None:
        """Return one cell's accuracy on one task and its standard error over items."""
        result = cell.tasks.get(task)
        score = None if result is None else result.scores.get(self.metric)
        if result is None or score is None:
            return None
        return score.value, binomial_error(score.value, score.stderr, result.items)

    def right_answers(self, model: str, row: Row) -> dict[int, list[NDArray[np.bool_]]]:
        """Return seed: which items are right, an array per task in the order of `tasks`; a cell that does not say so of all is left out."""
        answers: dict[int, list[NDArray[np.bool_]]] = {}
        for cell in self.members(model, row):
            scores = [cell.tasks[task].scores.get(self.metric) for task in self.tasks if task in cell.tasks]
            known = [score.right for score in scores if score is not None and score.right is not None]
            if known and len(known) == len(self.tasks):
                answers[cell.seed] = [np.frombuffer(right.encode(), dtype=np.uint8) == ord("1") for right in known]
        return answers

    def mean(self, model: str, row: Row) -> Estimate | None:
        """Estimate the mean of the tasks over the seeds there are."""
        means = list(self.seed_means(model, row).values())
        return estimate([value for value, _ in means], [error for _, error in means]) if means else None

    def task(self, model: str, row: Row, task: str) -> Estimate | None:
        """Estimate one task's accuracy over the seeds there are."""
        scores = [score for cell in self.members(model, row) if (score := self._score(cell, task)) is not None]
        return estimate([value for value, _ in scores], [error for _, error in scores]) if scores else None

    def perplexity(self, model: str, row: Row, text: str, unit: Unit) -> Estimate | None:
        """Estimate the perplexity of one text a unit over the seeds there are."""
        found = [cell.perplexity[text] for cell in self.members(model, row) if text in cell.perplexity]
        if not found:
            return None
        widths = [width for it in found if (width := it.half_width(unit)) is not None]
        over_text = fmean(widths) if len(widths) == len(found) else None
        return replace(estimate([it.value(unit) for it in found], [None] * len(found)), over_items=over_text)

    def seed_perplexities(self, model: str, row: Row, text: str, unit: Unit) -> dict[int, float]:
        """Return seed: the perplexity of one text a unit; a cell without the text is left out."""
        return {cell.seed: cell.perplexity[text].value(unit) for cell in self.members(model, row) if text in cell.perplexity}

    def losses(self, model: str, row: Row, text: str) -> dict[int, Losses]:
        """Return seed: the losses of one text's pieces; a cell that does not tell them is left out."""
        found = {cell.seed: cell.perplexity[text].pieces for cell in self.members(model, row) if text in cell.perplexity}
        return {seed: pieces for seed, pieces in found.items() if pieces is not None}

    def task_chance(self, task: str) -> float:
        """Return the accuracy of guessing on one task."""
        return next(cell.tasks[task].chance for cell in self.cells if task in cell.tasks)

    def task_items(self, task: str) -> int:
        """Return how many items one task has."""
        return next(cell.tasks[task].items for cell in self.cells if task in cell.tasks)

    @property
    def chance(self) -> float:
        """The accuracy of guessing, plain mean over the tasks."""
        return fmean(self.task_chance(task) for task in self.tasks)


def beats_guessing(grid: Grid) -> bool:
    """Return whether any row's mean accuracy is shown to be above the level of guessing; a scoring of which none is orders nothing."""
    means = (grid.mean(model, row) for model in models_of(grid.cells) for row in rows_of(grid.cells))
    return any(value is not None and value.position(grid.chance) == "above" for value in means)


def texts_of(cells: Sequence[Cell]) -> list[str]:
    """Return the names of the texts that any cell has a perplexity of, in alphabetical order."""
    return sorted({name for cell in cells for name in cell.perplexity})


def text_grid(paths: Sequence[Path], figure: str) -> Grid:
    """Return the cells of `paths` for a figure of their texts. Raises UserError on broken cells, or where none has a text's perplexity."""
    cells = read_cells(paths)
    if not texts_of(cells):
        raise UserError(f"no cell has the perplexity of a text; name texts under data.text, or leave the figure `{figure}` out")
    return Grid(cells, "")


def headline_grid(paths: Sequence[Path]) -> Grid:
    """Return the cells of `paths` under their headline metric. Raises UserError on broken cells, or where none has an accuracy."""
    cells = read_cells(paths)
    metrics = metrics_of(cells)
    if not metrics:
        raise UserError(f"{cells[0].path}: no cell has an accuracy; name at least one task in the experiment file's data.tasks")
    return Grid(cells, metrics[0])
