"""The tables as the page has them: those that tell most first and open, with titles in words, without a column that says one thing only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from study.report.page.run import Run
from study.report.page.verdict import tells
from study.results.cells import models_of
from study.tables.layouts import Layout
from study.tables.origins import health
from study.tables.writing import tables_of

OPEN = ("perplexity", "perplexity_comparisons")
SCORED = ("table1", "table3", "comparisons")
"""Tables of which there is one for each scoring: of those, the first that tells rows apart is open."""
LAST_OPEN = "sizes"
SCORING = re.compile(r"Scoring: (.+?)\.(?= |$)")
END_OF_TITLE = re.compile(r"[;(]|\.(?= |$)| of \d+ task")
"""A dot within a name, as in llama-3.1, ends none."""
MODEL = "Model"


@dataclass(frozen=True)
class Shown:
    """A table of the page: what its files are called, its title, and whether it is open at first."""

    name: str
    title: str
    layout: Layout
    open: bool


def shown_tables(run: Run) -> list[Shown]:
    """Return all tables, the open ones first."""
    tables = {name: layout for name, (layout, _) in tables_of(run.cells, run.table_settings).items()}
    wanted = [*OPEN, *(name + _suffix(run) for name in SCORED), LAST_OPEN]
    first = [name for name in wanted if name in tables]
    order = [*first, *(name for name in tables if name not in first)]
    return [Shown(name, _title(run, tables[name]), word_first(without_one_model(tables[name])), name in first) for name in order]


def _suffix(run: Run) -> str:
    """Return what the tables' names end in whose scoring tells rows apart: nothing for the headline's, or where none does."""
    metrics = list(run.grids)
    telling = [metric for metric in metrics if any(tells(run.grids[metric], model) for model in models_of(run.cells))]
    return f"_{telling[0]}" if telling and telling[0] != metrics[0] else ""


def _title(run: Run, layout: Layout) -> str:
    """Return what a table shows, from the first words of its caption and the scoring that this names."""
    named, _, caption = layout.caption.partition(". ") if layout.caption.startswith("Ablation") else ("", "", layout.caption)
    rest = caption.removeprefix(f"{run.name}: ").removeprefix(f"{run.name}, ")
    words = END_OF_TITLE.split(rest, maxsplit=1)[0].strip(" ,")
    scoring = SCORING.search(layout.caption)
    title = ": ".join(filter(None, [named, words])) + (f", by {scoring[1]}" if scoring else "")
    return title[:1].upper() + title[1:]


def without_one_model(layout: Layout) -> Layout:
    """Return a table without its column of models where that has one entry only: it takes the room of what is read."""
    if layout.header[0] != MODEL or len({row[0] for row in layout.rows}) > 1:
        return layout
    return replace(layout, header=layout.header[1:], rows=[row[1:] for row in layout.rows], text_columns=layout.text_columns - 1)


def word_first(layout: Layout) -> Layout:
    """Return a table of comparisons with its word (better, worse, no difference shown) behind the method: at the end it is out of sight."""
    if not layout.header[-1].endswith(" is"):
        return layout
    at = layout.text_columns
    header, *rows = ([*row[:at], row[-1], *row[at:-1]] for row in (layout.header, *layout.rows))
    return replace(layout, header=header, rows=rows, text_columns=at + 1)


def milestones(run: Run) -> tuple[Layout, Sequence[int]] | None:
    """Return the health of the tunings that pruned, and the places of its columns of words; None where nothing was tuned.

    Of those that did not there is nothing to be said but their losses: they are counted, where others are there.
    """
    layout = health(run.cells)
    if layout is None:
        return None
    found = len(layout.header) - 1
    pruned = [row for row in layout.rows if not row[found].startswith("no milestone")]
    if left := len(layout.rows) - len(pruned) if pruned else 0:
        note = (
            f"Left out, as there is no milestone to look at: {left} of {len(layout.rows)} tunings, which pruned nothing while they tuned."
        )
        layout = replace(layout, rows=pruned, notes=(*layout.notes, note))
    narrow = without_one_model(layout)
    return narrow, [len(narrow.header) - 1]
