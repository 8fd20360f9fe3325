"""Lays out what stands behind the cells: the steps that made each, and how its tuning went. Writes nothing.

Both are for reading in a browser: their commands and sentences are too long for print, and the cells' records hold them in full.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from study.results.cells import Cell
from study.results.milestones import judgement
from study.tables.accuracy import percent
from study.tables.layouts import HOLE, Layout

SHOWN_DIGITS = 10
PLACES = (", before the cut", ", after it")
"""Behind the method's name, of the two parts of a tuning that a pruning cuts in two."""
COMMAND, FOUND = 9, 9
"""The places of the columns that hold a command, and what was found of a tuning's health."""


def provenance(cells: Sequence[Cell]) -> Layout:
    """Return a line for each step of each cell: its code, settings, machine and command."""
    body = [[*_name(cell), step, *_origin(made)] for cell in cells for step, made in cell.provenance.items() if made]
    return Layout(
        f"{cells[0].experiment}: the steps that made each cell. commit: of the code, “changed” where the checkout had uncommitted "
        "changes; settings: the hash of all that the step was asked for.",
        ["Model", "Pruned", "Method", "Seed", "Step", "commit", "settings", "device", "versions", "command"],
        body,
        text_columns=COMMAND + 1,
    )


def health(cells: Sequence[Cell]) -> Layout | None:
    """Return a line for each tuning: its length, losses and milestone; None where nothing was tuned."""
    body = [
        [*_name(cell, place), *_course(record, cell.hidden_size.after)]
        for cell in cells
        for record, place in zip(cell.tunings, PLACES if len(cell.tunings) > 1 else ("",), strict=False)
    ]
    if not body:
        return None
    return Layout(
        f"{cells[0].experiment}: how each tuning went. loss: mean of training in nats per token, with what the tuner adds to it; "
        "before and after: the loss around the step from which the mask is fixed.",
        ["Model", "Pruned", "Method", "Seed", "steps", "loss", "before", "after", "channels kept", "found"],
        body,
        text_columns=4,
    )


def _name(cell: Cell, place: str = "") -> list[str]:
    return [cell.model, percent(cell.ratio_requested), cell.row.name + place, str(cell.seed)]


def _course(tuning: Mapping[str, Any], width: int) -> Iterator[str]:
    """Yield a tuning's entries, which a second run of it has too: no times. A record of an earlier version may lack any."""
    found = tuning.get("health") or {}
    yield number(tuning.get("steps"), "{:,}")
    yield number(tuning.get("train_loss"), "{:.3f}")
    yield number(found.get("loss_before_milestone"), "{:.3f}")
    yield number(found.get("loss_after_milestone"), "{:.3f}")
    yield number(found.get("kept_at_milestone"), "{}")
    yield judgement(found, width)


def number(value: float | None, form: str) -> str:
    """Return a number in a form, a hole where it is not known."""
    return HOLE if value is None else form.format(value)


def _origin(made: Mapping[str, Any]) -> Iterator[str]:
    commit = made.get("git_commit")
    yield HOLE if commit is None else str(commit)[:SHOWN_DIGITS] + (", changed" if made.get("git_dirty") else "")
    yield str(made.get("config_hash") or HOLE)[:SHOWN_DIGITS]
    yield str(made.get("gpu") or made.get("device") or HOLE)
    versions = made.get("versions") or {}
    yield ", ".join(f"{name} {versions[name]}" for name in ("torch", "transformers") if name in versions) or HOLE
    yield str(made.get("command") or "not recorded")
