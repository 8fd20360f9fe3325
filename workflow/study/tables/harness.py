"""Lays out what lm-eval's own tasks gave (`evaluation.harness_tasks`), as it gives it: its metrics, its items, its prompts. Writes nothing.

They stand beside our tasks in a table of their own, as neither items nor scoring are the same.
"""

from __future__ import annotations

import pandas as pd

from pat.data.harness_figures import error_of, is_error
from study.results.cells import Row, models_of, rows_of
from study.results.grid import Grid
from study.statistics.intervals import Estimate, estimate
from study.tables.accuracy import seed_note, with_interval
from study.tables.layouts import Layout
from study.tables.shares import pruned

UNFILTERED = "none"
"""What lm-eval calls an answer that it takes as it is."""
Column = tuple[str, str]
"""A task, and one of its figures as lm-eval calls it: "acc,none"."""


def of_harness(grid: Grid) -> tuple[Layout, pd.DataFrame] | None:
    """Return a line per model and row, a column per task and figure, means over seeds; None where no cell has any."""
    columns = columns_of(grid)
    if not columns:
        return None
    body, frames, found = [], [], {}
    for model in models_of(grid.cells):
        for row in rows_of(grid.cells):
            if not (members := [cell for cell in grid.members(model, row) if cell.harness]):
                continue
            values = {column: of_column(grid, model, row, column) for column in columns}
            found[model, row] = len(members)
            body.append([model, pruned(members, row), row.label, row.mode, *(with_interval(it, 4, 1.0) for it in values.values())])
            record: dict[str, object] = {"model": model, "ratio": row.ratio, "method": row.method, "label": row.label, "mode": row.mode}
            for (task, name), value in values.items():
                record[f"{task} {name}"] = None if value is None else value.mean
                record[f"{task} {name} ci95"] = None if value is None else value.half_width
            frames.append(record)
    header = ["Model", "Pruned", "Method", "Mode", *(f"{task}, {_shown(name)}" for task, name in columns)]
    items = {task: it.items for cell in grid.cells for task, it in cell.harness.items() if it.items is not None}
    counted = [f"Items: {', '.join(f'{task} {number:,}' for task, number in sorted(items.items()))}."] if items else []
    notes = [
        "±: 95 % interval, of several seeds over these (Student t), of one over items, from lm-eval's standard error.",
        *counted,
        seed_note(found),
    ]
    caption = f"{grid.cells[0].experiment}: lm-eval's own tasks, as it scores them; its figures, not in percent."
    return Layout(caption, header, body, text_columns=4, notes=notes), pd.DataFrame(frames)


def columns_of(grid: Grid) -> list[Column]:
    """Return the tasks with their figures, in the order of their names."""
    return sorted({(task, name) for cell in grid.cells for task, it in cell.harness.items() for name in it.scores if not is_error(name)})


def of_column(grid: Grid, model: str, row: Row, column: Column) -> Estimate | None:
    """Estimate a task's figure over the seeds there are; None where there is none."""
    task, name = column
    scores = [cell.harness[task].scores for cell in grid.members(model, row) if task in cell.harness]
    known = [it for it in scores if name in it]
    return estimate([it[name] for it in known], [error_of(it, name) for it in known]) if known else None


def _shown(name: str) -> str:
    """Return a figure's name without lm-eval's word for an answer taken as it is."""
    metric, _, chosen = name.partition(",")
    return metric if chosen == UNFILTERED else f"{metric} ({chosen})"
