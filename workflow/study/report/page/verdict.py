"""The verdict in words: of each model and ratio the best row, by how much, over which others that is shown, and what is not.

Every word rests on the paired comparisons of the tables, with the best row in the reference's place. Facts, no promises.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import pandas as pd

from study.report.page.run import Run
from study.results.cells import METRIC_LABELS, Row, models_of, rows_of
from study.results.grid import Grid, texts_of
from study.tables.accuracy import decimals, percent
from study.tables.comparison import comparisons
from study.tables.pairs import BETTER, ONE_SEED, WORSE
from study.tables.perplexity import UNTESTED, perplexity_comparisons

CHOSEN_AFTERWARDS = (
    "The best row was picked on the very numbers that it is compared on, which favours it a little; differences are called shown where the "
    "test, corrected for all comparisons with that row, and every interval show them."
)
POINTS = 100.0


@dataclass(frozen=True)
class Finding:
    """What is to be said of a model at a ratio under one measure, a sentence each."""

    title: str
    sentences: Sequence[str]


def verdict(run: Run) -> list[Finding]:
    """Return the findings of every model and ratio: perplexity first, then the scorings that tell rows apart, then the others."""
    places = [(model, ratio) for model in models_of(run.cells) for ratio in ratios_of(run, model)]
    found = []
    for model, ratio in places:
        name = f"{model}, {percent(ratio)} removed" if ratio else f"{model}, nothing removed"
        if sentences := list(_of_perplexity(run.grid, model, ratio)):
            found.append(Finding(f"{name}: perplexity", sentences))
        telling_first = sorted(run.grids.items(), key=lambda named: not tells(named[1], model, ratio))
        for metric, grid in telling_first:
            if sentences := list(_of_accuracy(grid, model, ratio)):
                found.append(Finding(f"{name}: accuracy by {METRIC_LABELS.get(metric, metric)}", sentences))
    return found


def remarks(run: Run) -> list[str]:
    """Return what holds for all findings."""
    seeds, numbers = len(run.grid.seeds), {len(run.grid.members(cell.model, cell.row)) for cell in run.cells}
    several = [f"Rows have up to {seeds} seeds; tables say how many each comparison rests on."] if seeds > 1 else []
    return [CHOSEN_AFTERWARDS, *several, *([ONE_SEED] if 1 in numbers else [])]


def ratios_of(run: Run, model: str) -> list[float]:
    """Return the ratios that a model was pruned at; 0 where at none."""
    ratios = sorted({cell.ratio_requested for cell in run.cells if cell.model == model})
    return [ratio for ratio in ratios if ratio] or ratios


def _of_perplexity(grid: Grid, model: str, ratio: float) -> Iterator[str]:
    texts = texts_of(grid.cells)
    means = {row: [grid.perplexity(model, row, text, "token") for text in texts] for row in rows_of(grid.cells)}
    whole = {row: [it.mean for it in values if it] for row, values in means.items() if all(values)}
    levels = {row: math.exp(fmean(map(math.log, values))) for row, values in whole.items()} if texts else {}
    rows = sorted((row for row in levels if row.ratio == ratio), key=levels.__getitem__)
    if not rows:
        return
    best = rows[0]
    numbers = _listed([f"{decimals(value, 2)} on {text}" for text, value in zip(texts, whole[best], strict=True)])
    yield f"{_named(best)} has the lowest perplexity: {numbers}."
    lowest = {text: min(rows, key=lambda row: whole[row][place]) for place, text in enumerate(texts)}
    if others := [f"{_named(row)} on {text}" for text, row in lowest.items() if row != best]:
        yield f"That is over all texts together (geometric mean); lower on a single one: {_listed(others)}."
    if len(rows) > 1:
        times, over = decimals(levels[rows[1]] / levels[best], 3), " over all texts" if len(texts) > 1 else ""
        yield f"Next is {_named(rows[1])}, {times} times as high{over}."
        table = perplexity_comparisons(grid, best.method)
        yield from _shown(table[1] if table else None, model, best, rows[1:], "text")
    if (whole_row := unpruned(grid, levels)) is not None and ratio:
        yield f"Against {_named(whole_row)}, which removes nothing, it is {decimals(levels[best] / levels[whole_row], 2)} times as high."


def _of_accuracy(grid: Grid, model: str, ratio: float) -> Iterator[str]:
    means = {row: value for row in rows_of(grid.cells) if (value := grid.mean(model, row)) is not None}
    rows = sorted((row for row in means if row.ratio == ratio), key=lambda row: -means[row].mean)
    if not rows:
        return
    best = rows[0]
    value, chance = means[best], POINTS * grid.chance
    width = "" if value.half_width is None else f" ± {POINTS * value.half_width:.1f}"
    tasks = f"{len(grid.tasks)} task{'s' if len(grid.tasks) > 1 else ''}"
    highest = f"{_named(best)} has the highest mean accuracy: {POINTS * value.mean:.1f}{width} % over {tasks}; guessing has {chance:.1f} %."
    above = [row for row in rows if means[row].position(grid.chance) == "above"]
    if not above:
        yield "No row is shown to be better than guessing, so that this scoring does not tell which is best."
        yield highest
        return
    yield highest
    if len(above) < len(rows):
        others = [_named(row) for row in rows if row not in above]
        yield f"Not shown to be better than guessing: {_listed(others)}."
    if len(rows) > 1:
        lower = f"{POINTS * (value.mean - means[rows[1]].mean):.1f}"
        yield f"Next is {_named(rows[1])}, {'as high to a tenth of a point' if lower == '0.0' else f'{lower} points lower'}."
        table = comparisons(grid, best.method)
        yield from _shown(table[1] if table else None, model, best, rows[1:], None)
    if (whole_row := unpruned(grid, means)) is not None and ratio:
        difference = f"{POINTS * (value.mean - means[whole_row].mean):+.1f}".replace("-", "−")
        yield f"Against {_named(whole_row)}, which removes nothing: {difference} points."


def tells(grid: Grid, model: str, ratio: float | None = None) -> bool:
    """Return whether any row that prunes, or prunes so much, is shown to be better than guessing: else a scoring tells none apart."""
    rows = [row for row in rows_of(grid.cells) if (row.ratio > 0 if ratio is None else row.ratio == ratio)]
    means = [value for row in rows or rows_of(grid.cells) if (value := grid.mean(model, row)) is not None]
    return any(value.position(grid.chance) == "above" for value in means)


def unpruned(grid: Grid, known: Mapping[Row, object]) -> Row | None:
    """Return the row that all others are measured by: the tuned one that prunes nothing, else the first that prunes nothing."""
    rows = [row for row in rows_of(grid.cells) if row.ratio == 0 and row in known]
    return next((row for row in rows if row.base_method == "lora"), next(iter(rows), None))


def _shown(frame: pd.DataFrame | None, model: str, best: Row, others: Sequence[Row], per: str | None) -> Iterator[str]:
    """Yield over which rows the best one's lead is shown, where on some texts alone, and over which it is not."""
    if frame is None:
        yield "Nothing is shown of the others: the single outcomes of their items or texts were not kept."
        return
    here = frame[(frame["model"] == model) & (frame["reference"] == best.method) & (frame["reference_ratio"] == best.ratio)]
    everywhere, partly, nowhere, behind = [], [], [], []
    untested: dict[str, list[str]] = {}
    for row in others:
        mine = here[(here["method"] == row.method) & (here["ratio"] == row.ratio)]
        worse, better = mine[mine["verdict"] == WORSE], mine[mine["verdict"] == BETTER]
        unknown = mine[mine["verdict"] == UNTESTED]
        if not unknown.empty and per:
            untested.setdefault(_listed([str(text) for text in unknown[per]]), []).append(_named(row))
        if not mine.empty and len(worse) == len(mine):
            everywhere.append(_named(row))
        elif not worse.empty and per:
            partly.append(f"{_named(row)} ({_listed([str(text) for text in worse[per]])})")
        elif mine.empty or len(unknown) < len(mine):
            nowhere.append(_named(row))
        if not better.empty and per:
            behind.append(f"{_named(row)} ({_listed([str(text) for text in better[per]])})")
    if everywhere:
        yield f"Shown to be better{' on every text' if per else ''} than {_listed(everywhere)}."
    if partly:
        yield f"Shown on some texts alone: better than {_listed(partly)}."
    if nowhere:
        yield f"Not shown to be better than {_listed(nowhere)}."
    for texts, names in untested.items():
        why = "one seed tells nothing without the losses of several documents or windows, cut alike"
        yield f"Not tested on {texts}, where {why}: {_listed(names)}."
    if behind:
        yield f"Shown to be worse on a text than {_listed(behind)}."


def _named(row: Row) -> str:
    """Return a row's name as a sentence has it: in quotation marks where it has a comma of its own."""
    return f"“{row.name}”" if "," in row.name else row.name


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
