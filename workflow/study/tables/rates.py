"""Lays out the learning rates that were searched: what was tried, which was best, and where that is an end of what was tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from pat.settings.jobs import end_of
from study.experiment.methods import MODES
from study.experiment.schema import TUNED_ROW
from study.results.cells import Cell, models_of, rows_of
from study.tables.accuracy import percent
from study.tables.layouts import HOLE, Layout

AT_AN_END, NOT_TOLD_APART = "†", "≈"
(_, PRUNED_LAST), (_, PRUNED_BETWEEN) = MODES["tune-prune"], MODES["tune-prune-tune"]


def searched_rates(cells: Sequence[Cell]) -> tuple[Layout, pd.DataFrame] | None:
    """Return a line per search; None where there was none."""
    arms = _searched(cells)
    if not arms:
        return None
    caption = (
        f"{cells[0].experiment}: learning rates that were searched. Behind each that was tried stands the cross-entropy, in nats a "
        "token, of rows that were kept apart; the smallest wins."
    )
    body, notes = list(map(_line, arms)), [_how(arms)]
    if any(map(is_at_an_end, arms)):
        notes.append(f"{AT_AN_END}: the smallest or largest that was tried; the best of all may lie beyond.")
    if any(NOT_TOLD_APART in line[-1] for line in body):
        notes.append(f"{NOT_TOLD_APART}: above the smallest by less than 1.96 standard errors over the rows, which do not tell them apart.")
    layout = Layout(caption, ["Model", "Method", "Mode", "Pruned", "Rate", "Tried"], body, text_columns=3, notes=notes)
    return layout, pd.DataFrame([record for arm in arms for record in _records(arm)])


def rate_notes(cells: Sequence[Cell]) -> list[str]:
    """Say below every table where the best rate need not be one that a search found."""
    arms = _searched(cells)
    ended, short = sum(map(is_at_an_end, arms)), sum(map(is_short, arms))
    notes = []
    if ended:
        notes.append(
            f"{_of(arms, ended)} found the smallest or largest candidate best, so that the best rate may lie beyond (table rates)."
        )
    if short:
        notes.append(
            f"{_of(arms, short)} had fewer steps than the tuning, and what is best then need not be best at its end (table rates)."
        )
    return notes


def _of(arms: Sequence[Cell], count: int) -> str:
    return "The search of a learning rate" if len(arms) == 1 else f"Of {len(arms)} searches of a learning rate {count}"


def is_at_an_end(cell: Cell) -> bool:
    """Whether a cell's rate is the smallest or the largest of those that were tried."""
    return end_of(_rate(cell), [candidate["learning_rate"] for candidate in _search(cell)["candidates"]]) is not None


def is_short(cell: Cell) -> bool:
    """Whether the candidates of a cell's search were tuned for fewer steps than the cell was."""
    steps = _search(cell)["steps"]
    return steps is not None and steps < _steps(cell)


def _searched(cells: Sequence[Cell]) -> list[Cell]:
    """Return for each search that a record says of one cell: seeds share it, and where it was of the unpruned model rows or ratios too."""
    found = {(cell.model, cell.row): cell for cell in cells if "candidates" in _search(cell)}
    places = [(model, row) for model in models_of(cells) for row in rows_of(cells)]
    searches: dict[tuple[str, ...], Cell] = {}
    for cell in (found[place] for place in places if place in found):
        searches.setdefault(_name_of_search(cell), cell)
    return list(searches.values())


def _name_of_search(cell: Cell) -> tuple[str, ...]:
    """Return what tells the search of a cell's rate from others: its model, and the row that was searched, at its ratio where it has one.

    What is pruned after its tuning has the rate of the row that tunes alone; a tuning in two parts is searched unpruned, for all ratios.
    """
    return (cell.model, TUNED_ROW if cell.mode == PRUNED_LAST else cell.method, f"{_ratio(cell):g}")


def _ratio(cell: Cell) -> float:
    """Return the ratio that a cell's rate was searched at."""
    return 0.0 if cell.mode in (PRUNED_LAST, PRUNED_BETWEEN) else cell.ratio_requested


def _search(cell: Cell) -> dict[str, Any]:
    found: dict[str, Any] = (cell.tuning or {}).get("search", {})
    return found


def _rate(cell: Cell) -> float:
    return float((cell.tuning or {})["learning_rate"])


def _line(cell: Cell) -> list[str]:
    tried = ", ".join(f"{candidate['learning_rate']:g}: {_loss(candidate)}" for candidate in _search(cell)["candidates"])
    mark = AT_AN_END if is_at_an_end(cell) else ""
    return [cell.model, cell.row.label, cell.row.mode, percent(_ratio(cell)), f"{_rate(cell):g}{mark}", tried]


def _loss(candidate: Mapping[str, Any]) -> str:
    """Return a candidate's loss, marked where the rows do not tell it from the best one's; records of earlier versions cannot say."""
    if candidate["dev_loss"] is None:
        return HOLE
    return f"{candidate['dev_loss']:.3f}" + (NOT_TOLD_APART if candidate.get("told_apart") is False else "")


def _records(cell: Cell) -> list[dict[str, Any]]:
    row = cell.row
    place = {"model": cell.model, "method": row.method, "label": row.label, "mode": row.mode, "ratio": _ratio(cell)}
    return [place | candidate | {"chosen": candidate["learning_rate"] == _rate(cell)} for candidate in _search(cell)["candidates"]]


def _steps(cell: Cell) -> int:
    """Return the steps of a cell's tuning, of both its parts where the pruning lies between: a search tries them as one."""
    return sum(int(tuning["steps"]) for tuning in cell.tunings)


def _length(cell: Cell) -> str:
    steps = _search(cell)["steps"]
    if steps is None:
        return "as many steps as the tuning"
    return f"{steps} of the tuning's {_steps(cell)} steps" if is_short(cell) else f"{steps} steps"


def _how(arms: Sequence[Cell]) -> str:
    searches = list(map(_search, arms))
    lengths = sorted(set(map(_length, arms)))
    rows = sorted({search["dev_rows"] for search in searches})
    return f"Each candidate was tuned for {' or '.join(lengths)}; rows kept apart: {' or '.join(map(str, rows))}. {HOLE}: diverged."
