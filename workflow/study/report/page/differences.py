"""What differs between two runs: the settings of cells that both have, the versions behind them, and their numbers. As tables."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from study.report.page.run import Run, place
from study.results.cells import METRIC_LABELS, Cell, Row, rows_of
from study.results.grid import texts_of
from study.tables.accuracy import percent, signed
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
    caption = f"Settings that differ in the {len(theirs.keys() & {place(cell) for cell in run.cells})} cells that both runs have."
    return Layout(caption, ["Step", "Setting", "this run", "the other run", "cells"], rows, text_columns=4)


def _differing(mine: Cell, theirs: Cell) -> Iterator[tuple[tuple[str, str], tuple[str, str]]]:
    for step in sorted(mine.provenance.keys() | theirs.provenance.keys()):
        one, two = (_flat((cell.provenance.get(step) or {}).get("settings") or {}) for cell in (mine, theirs))
        for key in sorted(one.keys() | two.keys()):
            if one.get(key, HOLE) != two.get(key, HOLE):
                yield (step, key), (one.get(key, HOLE), two.get(key, HOLE))


def _flat(settings: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """Return nested settings by their dotted names, without checksums, which say that inputs differ and not which setting does."""
    found: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{before}{key}.")
        elif not CHECKSUM.fullmatch(str(value)):
            found[f"{before}{key}"] = str(value)
    return found


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
    return Layout(
        "Numbers of the rows that both runs have, means over their seeds. The difference is in percent of the other run's perplexity, "
        "and in points of accuracy; nothing here says whether it is more than chance.",
        ["Model", "Pruned", "Method", "Measure", "this run", "the other run", "difference"],
        rows,
        text_columns=4,
    )


def _compared(run: Run, other: Run, model: str, mine: Row, theirs: Row) -> Iterator[list[str]]:
    for text in sorted(set(texts_of(run.cells)) & set(texts_of(other.cells))):
        one, two = run.grid.perplexity(model, mine, text, "token"), other.grid.perplexity(model, theirs, text, "token")
        if one and two:
            change = 100 * math.expm1(math.log(one.mean) - math.log(two.mean))
            yield [f"perplexity of {text}", f"{one.mean:.2f}", f"{two.mean:.2f}", f"{signed(change)} %"]
    for metric in (name for name in run.grids if name in other.grids):
        value, its = run.grids[metric].mean(model, mine), other.grids[metric].mean(model, theirs)
        if value and its:
            name = METRIC_LABELS.get(metric, metric)
            yield [name, f"{POINTS * value.mean:.1f}", f"{POINTS * its.mean:.1f}", signed(POINTS * (value.mean - its.mean))]
