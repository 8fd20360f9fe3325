"""The part of the grid that a run is to make: that the grid has all that it names, and a cell that all its lists name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pat.settings.mistakes import nearest, shown
from study.experiment.schema import Experiment


def selection_problems(experiment: Experiment) -> Iterator[str]:
    """Check that every model, row, ratio and seed of `only` is one of the grid's, and that together they choose a cell."""
    if (only := experiment.only) is None:
        return
    rows = experiment.known_rows
    ratios = [asked for row in rows for asked in experiment.asked_of(row)]
    seeds = sorted({seed for row in rows for seed in experiment.seeds_of(row)})
    problems = [
        *(f"only.models: {shown(name)} is not one of models{nearest(name, experiment.models)}"
          for name in only.models or () if name not in experiment.models),
        *(f"only.rows: {shown(name)} is not a row of methods{nearest(name, experiment.methods)}"
          for name in only.rows or () if name not in experiment.methods),
        *_unknown("ratios", only.ratios, [each for place, each in enumerate(ratios) if each not in ratios[:place]]),
        *_unknown("seeds", only.seeds, seeds),
    ]  # fmt: skip
    yield from problems
    if not problems and rows.keys() == experiment.methods.keys() and not experiment.chosen_cells():
        yield "only: names no cell of the grid: none of these rows is run on these models at these ratios with these seeds"


def _unknown(key: str, asked: Sequence[object] | None, known: Sequence[object]) -> Iterator[str]:
    if unknown := [value for value in asked or () if value not in known]:
        yield f"only.{key}: {shown(unknown)} is not allowed: must be among those that rows run with, {shown(known)}"
