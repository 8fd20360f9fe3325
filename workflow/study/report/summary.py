"""What `make demo` shows at its end: table 1, what it says in plain sentences, how long it took, and where everything lies. Writes no file.

An experiment without tasks has no table 1: its perplexities stand in the place. They stand beside it where the tasks order nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from study.commands.errors import errors_reported
from study.experiment.table_settings import METRICS
from study.report.sentences import facts, health_lines, merge_line
from study.results.cells import METRIC_LABELS, metrics_of, read_cells
from study.results.grid import Grid, beats_guessing, texts_of
from study.results.options import behind_tables
from study.results.published import PRINTED, Printed
from study.results.times import FOLDER as MEASURED
from study.results.times import read_times, whole
from study.tables.accuracy import accuracy_table
from study.tables.harness import of_harness
from study.tables.layouts import Layout
from study.tables.sizes import perplexities
from study.tables.times import sentence

SUMMARISED = (METRICS[0], "acc")
"""Of the scorings, the paper's and the log-likelihood one are summed up; the tables hold all."""
PLAIN_WIDTH = 200
"""Columns where the output is no terminal: a file or a pipe does not fold lines by itself."""


def show(results: Path, console: Console) -> None:
    """Print the summary of the experiment whose results lie in `results`. Raises UserError where tables or cells are missing or broken."""
    cells = read_cells(behind_tables(results))
    metrics = metrics_of(cells)
    printed = Printed(next((name for name in PRINTED if (results / "tables" / f"{name}.csv").is_file()), "table1"))
    notes: dict[str, None] = {}
    tells = False
    for metric in [name for name in SUMMARISED if name in metrics] or metrics[:1]:
        grid = Grid(cells, metric)
        tells = tells or beats_guessing(grid)
        layout, _ = accuracy_table(grid, printed)
        _show_table(layout, console)
        notes |= dict.fromkeys(layout.notes)
        _show_list(f"In points of mean accuracy, {METRIC_LABELS.get(metric, metric)}:", facts(grid), console)
    if not tells and texts_of(cells):
        layout, _ = perplexities(Grid(cells, SUMMARISED[0]))
        _show_table(layout, console)
        notes |= dict.fromkeys(layout.notes)
    if (own := of_harness(Grid(cells, SUMMARISED[0]))) is not None:
        _show_table(own[0], console)
        notes |= dict.fromkeys(own[0].notes)
    _show_list("Notes:", list(notes), console)
    _show_list("Checks:", [*health_lines(cells), *merge_line(cells)], console)
    if (results / MEASURED).is_dir():
        _show_list("Time:", [sentence(whole(read_times(results)).record()), f"study times --results {results}: step by step"], console)
    _show_list("More:", places(results), console)


def _show_table(layout: Layout, console: Console) -> None:
    _say(f"\n{layout.caption}", console)
    table = Table(box=SIMPLE_HEAD if console.is_terminal else None, pad_edge=False)
    for position, title in enumerate(layout.header):
        table.add_column(title, justify="left" if position < layout.text_columns else "right", overflow="fold")
    for row in layout.rows:
        table.add_row(*row)
    console.print(table)


def _show_list(title: str, lines: Sequence[str], console: Console) -> None:
    if lines:
        _say(f"\n{title}", console)
    for line in lines:
        _say(f"  {line}", console)


def _say(text: str, console: Console) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=not console.is_terminal)


def places(results: Path) -> list[str]:
    """Return where the rest of the results lies: only what is there."""
    named = {
        "tables": "every table as .html to look at, .csv, .md and .tex; cells.csv leads from each number to its JSON",
        "figures": "what can be drawn of it, each as .png and .pdf with its points as .csv",
        "logs": "the log of every step",
    }
    lines = [f"{results / name}/: {what}" for name, what in named.items() if (results / name).is_dir()]
    return [*lines, f"{results}/checkpoints/<model>/<method>/<ratio>/seed<k>/merged/: a stock checkpoint per cell"]


def main(results: Annotated[Path, typer.Option(help="An experiment's results, for example results/demo.")]) -> None:
    """Print an experiment's table 1, what it says of PAT in plain sentences, and where the rest lies."""
    with errors_reported():
        show(results, Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH))
