"""Lays out the accuracy tables: tables 1 and 3 of the paper and the per-task table of one model. Writes nothing.

Accuracies are in percent here and in the tables' CSV files, as in the paper; everywhere else they are in 0..1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from study.results.cells import METRIC_LABELS, Cell, Row, models_of, rows_of
from study.results.grid import Grid, texts_of
from study.results.published import Printed
from study.statistics.intervals import Estimate
from study.tables.layouts import HOLE, MARKS, Layout
from study.tables.shares import pruned

LARGE = 1e6
CHANCE_MARK, BELOW_MARK = MARKS[0], MARKS[1]


def percent(ratio: float) -> str:
    """Return a pruning ratio the way a table shows it."""
    return f"{100 * ratio:.4g} %"


def signed(value: float) -> str:
    """Return a difference with its sign, a true minus included."""
    return f"{value:+.1f}".replace("-", "−")


def decimals(value: float, digits: int) -> str:
    """Return a number with so many decimals, one that has lost all meaning but its size by its power of ten."""
    return f"{value:.1e}" if abs(value) >= LARGE else f"{value:.{digits}f}"


def with_interval(value: Estimate | None, digits: int = 1, scale: float = 100.0) -> str:
    """Return "mean ± half width", the mean alone without an interval, a dash for a hole."""
    if value is None:
        return HOLE
    mean = decimals(scale * value.mean, digits)
    return mean if value.half_width is None else f"{mean} ± {decimals(scale * value.half_width, digits)}"


def accuracy_table(grid: Grid, printed: Printed) -> tuple[Layout, pd.DataFrame]:
    """Return table 1 or 3 of one metric: rows ratio × method × mode, a column per model, the mean of the tasks in percent."""
    models, rows = models_of(grid.cells), rows_of(grid.cells)
    found = {(model, row): printed.lookup(model, row.method, row.base_method, row.ratio) for model in models for row in rows}
    columns = ModelColumns(grid, {place: number for place, number in found.items() if number is not None})
    header = ["Pruned", "Method", "Mode", *columns.header]
    body = [["", "guessing", "", *columns.chance], *([pruned(grid.cells, row), row.label, row.mode, *columns.entries(row)] for row in rows)]
    frame = pd.DataFrame([row_names(row) | columns.record(row) for row in rows])
    notes = [
        *interval_notes(grid, models, rows),
        *chance_notes(grid, models, rows),
        *cut_notes(grid, models),
        *columns.notes(printed.number),
    ]
    return Layout(caption(grid), header, body, text_columns=3, notes=notes), frame


def row_names(row: Row) -> dict[str, object]:
    """Return the columns that name a row in a table's CSV."""
    return {"ratio": row.ratio, "method": row.method, "label": row.label, "mode": row.mode}


@dataclass(frozen=True)
class ModelColumns:
    """A column per model, the mean of the tasks in percent; where the paper printed any of its cells, two more with them beside ours.

    Of a metric that is not the paper's, none is shown.
    """

    grid: Grid
    paper: Mapping[tuple[str, Row], float]

    @property
    def _beside(self) -> set[str]:
        return {model for model, _ in self.paper} if self.grid.metric == Printed.metric else set()

    @property
    def header(self) -> list[str]:
        """The columns' titles."""
        return [title for model in models_of(self.grid.cells) for title in ((model, "paper", "Δ") if model in self._beside else (model,))]

    @property
    def chance(self) -> list[str]:
        """The entries of guessing."""
        entry = f"{100 * self.grid.chance:.1f}"
        return [text for model in models_of(self.grid.cells) for text in ((entry, "", "") if model in self._beside else (entry,))]

    def entries(self, row: Row) -> list[str]:
        """Return one row's entries."""
        return [entry for model in models_of(self.grid.cells) for entry in self._entries(model, row)]

    def _entries(self, model: str, row: Row) -> list[str]:
        value, number = self.grid.mean(model, row), self.paper.get((model, row))
        entries = [with_interval(value) + mark(value, self.grid.chance)]
        if model in self._beside:
            entries.append(HOLE if number is None else f"{number:.2f}")
            entries.append(HOLE if number is None or value is None else signed(100 * value.mean - number))
        return entries

    def record(self, row: Row) -> dict[str, object]:
        """Return the same for the table's CSV."""
        record: dict[str, object] = {}
        for model in models_of(self.grid.cells):
            number = self.paper.get((model, row)) if model in self._beside else None
            record |= {f"{model} {key}": it for key, it in _record(self.grid.mean(model, row), number, self.grid.chance).items()}
        return record

    def notes(self, table: int) -> list[str]:
        """Return what says where the paper's numbers are from; `table` is its table's number."""
        if not self._beside:
            return []
        return [
            f"paper: the number printed in table {table} of Liu et al. (arXiv 2408.14721), the mean of its tasks (14 of them in tables 1 "
            f"and 2); Δ: ours minus the paper's. Ours is the mean of {len(self.grid.tasks)} task(s): they compare only where the tasks are "
            "the same."
        ]


def mark(value: Estimate | None, chance: float) -> str:
    """Return the sign a table puts behind an accuracy that is not above guessing."""
    return "" if value is None else {"same": CHANCE_MARK, "below": BELOW_MARK}.get(value.position(chance) or "", "")


def _record(value: Estimate | None, number: float | None, chance: float) -> dict[str, object]:
    if value is None:
        known: dict[str, object] = {"mean": None, "ci95": None, "interval_over": "", "seeds": 0, "against_chance": ""}
        return {**known, "paper": number, "difference": None}
    return {
        "mean": 100 * value.mean,
        "ci95": None if value.half_width is None else 100 * value.half_width,
        "interval_over": value.source,
        "seeds": value.seeds,
        "against_chance": value.position(chance) or "",
        "paper": number,
        "difference": None if number is None else 100 * value.mean - number,
    }


def caption(grid: Grid) -> str:
    """Return what a table of task means is about."""
    scoring = METRIC_LABELS.get(grid.metric, grid.metric)
    tasks = ", ".join(grid.tasks)
    return (
        f"{grid.cells[0].experiment}: mean accuracy of {len(grid.tasks)} task(s) in percent ({tasks}). Scoring: {scoring}. "
        f"Guessing gives {100 * grid.chance:.1f}."
    )


def interval_notes(grid: Grid, models: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """Say what stands behind ± and how many seeds there are."""
    estimates = {(model, row): grid.mean(model, row) for model in models for row in rows}
    sources = {value.source for value in estimates.values() if value is not None}
    notes = []
    if "seeds" in sources:
        notes.append("±: 95 % interval of the mean over seeds (Student t), on the same items.")
    if "items" in sources:
        subject = "Entries with one seed" if "seeds" in sources else "One seed"
        notes.append(
            f"{subject}: ± is the 95 % interval over items (from the binomial standard error, the bootstrap's closed "
            "form, never taken as 0); "
            "it says nothing of how other seeds would do."
        )
    notes.append(seed_note({place: value.seeds for place, value in estimates.items() if value is not None}))
    if any(value is None for value in estimates.values()):
        notes.append(f"{HOLE}: not run, or without all of the tasks.")
    return notes


def seed_note(found: Mapping[tuple[str, Row], int]) -> str:
    """Say how many seeds those have that have most, and which models and rows have fewer; `found` is how many each has."""
    seeds = max(found.values(), default=0)
    several = len({model for model, _ in found}) > 1
    ratios: dict[tuple[int, str, str], list[str]] = {}
    for (model, row), number in found.items():
        if number < seeds:
            ratios.setdefault((number, row.name, f" on {model}" if several else ""), []).append(percent(row.ratio))
    by_number: dict[int, list[str]] = {}
    for (number, name, place), at in ratios.items():
        by_number.setdefault(number, []).append(f"{name} at {' and '.join(at)}{place}")
    exceptions = [f"{number} of {'; '.join(names)}" for number, names in sorted(by_number.items())]
    return f"Seeds: {seeds}, except {', and '.join(exceptions)}." if exceptions else f"Seeds: {seeds}."


def chance_notes(grid: Grid, models: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """Say plainly where a number is no better than guessing, and where that holds for a whole model."""
    positions = {
        (model, row): value.position(grid.chance) for model in models for row in rows if (value := grid.mean(model, row)) is not None
    }
    notes = []
    if "same" in positions.values():
        notes.append(f"{CHANCE_MARK}: cannot be distinguished from guessing: the 95 % interval, over seeds or over items, covers it.")
    if "below" in positions.values():
        notes.append(f"{BELOW_MARK}: worse than guessing; an answer without a readable choice counts as wrong.")
    for model in models:
        found = {position for (name, _), position in positions.items() if name == model}
        if found and found <= {"same", "below"}:
            scoring = METRIC_LABELS.get(grid.metric, grid.metric)
            notes.append(
                f"No row of {model} is better than guessing ({scoring}): these accuracies say nothing about the order of the methods."
            )
    return notes


def cut_notes(grid: Grid, models: Sequence[str]) -> list[str]:
    """Say how many answers, at most of one cell, were cut before they named a choice; nothing where texts are not what is scored."""
    if not grid.metric.startswith("first_capital"):
        return []
    cells = [cell for cell in grid.cells if cell.model in models]
    worst = max(cells, key=_share_without_choice)
    if not (share := _share_without_choice(worst)):
        return []
    return [
        "Answers that were cut at evaluation.max_new_tokens before they named a choice count as wrong; they are at most "
        f"{100 * share:.1f} % of a cell's ({worst.model}, {worst.row.name}, {percent(worst.ratio_requested)})."
    ]


def _share_without_choice(cell: Cell) -> float:
    counted = [task for task in cell.tasks.values() if task.cut_answers is not None]
    cut = sum(task.cut_answers.without_choice for task in counted if task.cut_answers is not None)
    return cut / sum(task.items for task in counted) if counted else 0.0


def per_task(grid: Grid, model: str) -> tuple[Layout, pd.DataFrame]:
    """Return one model's table: a column per task, their mean, and the perplexities per token of the texts there are."""
    texts = texts_of([cell for cell in grid.cells if cell.model == model])
    rows = [row for row in rows_of(grid.cells) if grid.members(model, row)]
    header = ["Pruned", "Method", "Mode", *grid.tasks, "mean", *(f"{text} (perplexity)" for text in texts)]
    chances = [f"{100 * grid.task_chance(task):.1f}" for task in grid.tasks]
    body = [
        ["", "items", "", *(str(grid.task_items(task)) for task in grid.tasks), *[""] * (1 + len(texts))],
        ["", "guessing", "", *chances, f"{100 * grid.chance:.1f}", *[""] * len(texts)],
    ]
    frames, found = [], list[Estimate | None]()
    for row in rows:
        scores = {task: grid.task(model, row, task) for task in grid.tasks}
        mean = grid.mean(model, row)
        perplexities = {text: grid.perplexity(model, row, text, "token") for text in texts}
        found += perplexities.values()
        marked = [with_interval(value) + mark(value, grid.task_chance(task)) for task, value in scores.items()]
        body.append(
            [
                pruned(grid.members(model, row), row),
                row.label,
                row.mode,
                *marked,
                with_interval(mean) + mark(mean, grid.chance),
                *(perplexity(value) for value in perplexities.values()),
            ]
        )
        record: dict[str, object] = {"ratio": row.ratio, "method": row.method, "label": row.label, "mode": row.mode}
        for task, value in [*scores.items(), ("mean", mean)]:
            record |= _columns(task, value, 100.0)
        for text, value in perplexities.items():
            record |= _columns(f"{text} perplexity", value, 1.0)
        frames.append(record)
    scoring = METRIC_LABELS.get(grid.metric, grid.metric)
    title = f"{grid.cells[0].experiment}, {model}: accuracy of each task in percent. Scoring: {scoring}. mean: plain mean of the tasks."
    of_texts = perplexity_notes(found) if texts else []
    notes = [*interval_notes(grid, [model], rows), *chance_notes(grid, [model], rows), *cut_notes(grid, [model]), *of_texts]
    return Layout(title, header, body, text_columns=3, notes=notes), pd.DataFrame(frames)


def _columns(name: str, value: Estimate | None, scale: float) -> dict[str, object]:
    width = None if value is None else value.half_width
    return {name: None if value is None else scale * value.mean, f"{name} ci95": None if width is None else scale * width}


def perplexity(value: Estimate | None, digits: int = 2) -> str:
    """Return a perplexity with its interval; large ones lose their decimals."""
    large = value is not None and value.mean >= 1000
    return with_interval(value, digits=0 if large else digits, scale=1.0)


def perplexity_notes(values: Iterable[Estimate | None]) -> list[str]:
    """Say what stands behind ± of perplexities, and why some have none."""
    sources = {value.source for value in values if value is not None}
    if not sources - {""}:
        return ["One seed: no interval."]
    notes = ["±: 95 % interval of the mean over seeds (Student t), on the same text."] if "seeds" in sources else []
    if "items" in sources:
        notes.append(
            f"{'Perplexities with one seed' if notes else 'One seed'}: ± is the 95 % interval over the text: over its documents, or "
            "over the windows of one that is a single document (neighbours taken for related, Newey and West). All rows read the same "
            "text, so that their differences are surer than that (table perplexity_comparisons)."
        )
    if "" in sources:
        notes.append(
            "Without ±: one seed, and the result does not tell the losses, or sizes, of two documents or more, or of the many windows of "
            "one; those of earlier versions, and per byte of a single document, do not."
        )
    return notes
