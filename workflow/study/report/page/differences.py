"""What differs between two runs: the settings of cells that both have, the versions behind them, and their numbers. As tables."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from pat.io.dotted import dotted
from study.report.page.run import Run, place
from study.results.cells import METRIC_LABELS, Cell, Row, rows_of
from study.results.grid import Grid, texts_of
from study.tables.accuracy import decimals, percent, signed
from study.tables.layouts import HOLE, Layout

CHECKSUM = re.compile(r"[0-9a-f]{64}")
MOST_VALUES = 4
ORIGIN = ("git_commit", "python", "device", "gpu", "machine")
POINTS = 100.0


def differences(run: Run, other: Run) -> list[Layout]:
    """Return the tables of what differs between a run and another, an empty list where nothing of them can be compared."""
    tables = [_numbers(run, other), _settings(run, other), _versions(run, other), _rows(run, other)]
    return [table for table in tables if table.rows]


def _rows(run: Run, other: Run) -> Layout:
    rows = [*_lacking(run, other, "this run"), *_lacking(other, run, "the other run")]
    return Layout("Cells that only one of the runs has.", ["Model", "Method", "Pruned", "seeds", "only in"], rows, text_columns=5)


def _lacking(one: Run, two: Run, called: str) -> Iterator[list[str]]:
    """Yield the rows of a run with those of their seeds that the other run lacks."""
    known = {place(cell) for cell in two.cells}
    seeds: dict[tuple[str, str, str], list[str]] = {}
    for cell in one.cells:
        if place(cell) not in known:
            seeds.setdefault((cell.model, cell.row.name, percent(cell.ratio_requested)), []).append(str(cell.seed))
    for name, lacking in seeds.items():
        yield [*name, ", ".join(lacking), called]


def _settings(run: Run, other: Run) -> Layout:
    theirs = {place(cell): cell for cell in other.cells}
    found: dict[tuple[str, str], dict[str, tuple[str, str]]] = {}
    for cell in run.cells:
        if (name := place(cell)) in theirs:
            for key, values in _differing(cell, theirs[name]):
                found.setdefault(key, {})[name] = values
    rows = [
        [step, key, _some([one for one, _ in cells.values()]), _some([two for _, two in cells.values()]), str(len(cells))]
        for (step, key), cells in sorted(found.items())
    ]
    both = len(theirs.keys() & {place(cell) for cell in run.cells})
    caption = f"Settings that differ in the {'cell' if both == 1 else f'{both} cells'} that both runs have."
    return Layout(caption, ["Step", "Setting", "this run", "the other run", "cells"], rows, text_columns=4)


def _differing(mine: Cell, theirs: Cell) -> Iterator[tuple[tuple[str, str], tuple[str, str]]]:
    for step in sorted(mine.provenance.keys() | theirs.provenance.keys()):
        one, two = (_settings_of((cell.provenance.get(step) or {}).get("settings") or {}) for cell in (mine, theirs))
        for key in sorted(one.keys() | two.keys()):
            if one.get(key, HOLE) != two.get(key, HOLE):
                yield (step, key), (one.get(key, HOLE), two.get(key, HOLE))


def _settings_of(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return nested settings by their dotted names, without checksums, which say that inputs differ and not which setting does."""
    return {name: str(value) for name, value in dotted(settings) if not CHECKSUM.fullmatch(str(value))}


def _some(values: list[str]) -> str:
    distinct = list(dict.fromkeys(values))
    return ", ".join(distinct[:MOST_VALUES]) + (", …" if len(distinct) > MOST_VALUES else "")


def _versions(run: Run, other: Run) -> Layout:
    one, two = _origins(run), _origins(other)
    rows = [
        [name, _some(sorted(one.get(name, {HOLE}))), _some(sorted(two.get(name, {HOLE})))]
        for name in sorted(one.keys() | two.keys())
        if one.get(name) != two.get(name)
    ]
    return Layout("Code, packages and machines that differ.", ["What", "this run", "the other run"], rows, text_columns=3)


def _origins(run: Run) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for made in (step for cell in run.cells for step in cell.provenance.values() if step):
        named = {name: made[name] for name in ORIGIN if made.get(name)} | (made.get("versions") or {})
        for name, value in named.items():
            found.setdefault(name, set()).add(str(value))
    return found


def _numbers(run: Run, other: Run) -> Layout:
    rows = []
    theirs = {(row.method, row.ratio): row for row in rows_of(other.cells)}
    for row in rows_of(run.cells):
        if (same := theirs.get((row.method, row.ratio))) is not None:
            for model in sorted({cell.model for cell in run.cells} & {cell.model for cell in other.cells}):
                rows += [[model, percent(row.ratio), row.name, *entries] for entries in _compared(run, other, model, row, same)]
    differing = [row for row in rows if row[-2] != row[-3] or row[-1] == HOLE]
    alike = (
        f" {len(rows) - len(differing)} of {len(rows)} numbers are the same as printed, and left out." if len(differing) < len(rows) else ""
    )
    return Layout(
        "Numbers of the rows that both runs have, means over the seeds that both have, or where they share none, over each one's own; of "
        "accuracy over the tasks whose items both have. The difference is "
        f"in percent of the other run's perplexity, and in points of accuracy; nothing here says whether it is more than chance.{alike}",
        ["Model", "Pruned", "Method", "Measure", "this run", "the other run", "difference"],
        differing,
        text_columns=4,
    )


def _compared(run: Run, other: Run, model: str, mine: Row, theirs: Row) -> Iterator[list[str]]:
    for text in sorted(set(texts_of(run.cells)) & set(texts_of(other.cells))):
        found = (each.grid.seed_perplexities(model, row, text, "token") for each, row in ((run, mine), (other, theirs)))
        if means := _means(*found):
            one, two = means
            same = _same(_pieces(run, model, text), _pieces(other, model, text))
            change = f"{signed(100 * math.expm1(math.log(one) - math.log(two)))} %" if same else HOLE
            yield [
                f"perplexity of {text}{'' if same else ', of other documents or tokens'}",
                decimals(one, 2),
                decimals(two, 2),
                change,
            ]
    for metric in (name for name in run.grids if name in other.grids):
        tasks = _shared_tasks(run, other, metric)
        scores = (Grid(each.cells, metric, tasks or None).seed_means(model, row) for each, row in ((run, mine), (other, theirs)))
        if means := _means(*({seed: value for seed, (value, _) in its.items()} for its in scores)):
            one, two = means
            difference = signed(POINTS * (one - two)) if tasks else HOLE
            name = METRIC_LABELS.get(metric, metric) + _of_which(run.grids[metric], other.grids[metric], tasks)
            yield [name, f"{POINTS * one:.1f}", f"{POINTS * two:.1f}", difference]


def _means(mine: Mapping[int, float], theirs: Mapping[int, float]) -> tuple[float, float] | None:
    """Return both means over the seeds that both have, or over each one's own where they share none; None where either has nothing."""
    if not mine or not theirs:
        return None
    shared = mine.keys() & theirs.keys()
    one, two = (fmean(values[seed] for seed in sorted(shared or values)) for values in (mine, theirs))
    return one, two


def _shared_tasks(run: Run, other: Run, metric: str) -> list[str]:
    """Return the tasks that both runs have, with the same items."""
    shared = [task for task in run.grids[metric].tasks if task in other.grids[metric].tasks]
    return [task for task in shared if all(map(_same, _items(run, task), _items(other, task)))]


def _of_which(one: Grid, two: Grid, tasks: Sequence[str]) -> str:
    """Return what is to be said of the tasks that a mean is over, where the runs do not have the same."""
    if not tasks:
        return ", over other tasks or items"
    return "" if len(one.tasks) == len(two.tasks) == len(tasks) else f", over {', '.join(tasks)} alone"


def _items(run: Run, task: str) -> tuple[int, str | None]:
    found = next(cell.tasks[task] for cell in run.cells if task in cell.tasks)
    return found.items, found.items_hash


def _pieces(run: Run, model: str, text: str) -> Sequence[int] | None:
    """Return the tokens of a text's documents or windows; None where no cell tells them."""
    found = (cell.perplexity[text].pieces for cell in run.cells if cell.model == model and text in cell.perplexity)
    return next((it.tokens for it in found if it is not None), None)


def _same(one: object, two: object) -> bool:
    """Return whether two facts are the same, as far as both are known."""
    return one is None or two is None or one == two
