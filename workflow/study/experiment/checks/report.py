"""What the report shows: that ablation tables have rows, and figures their data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pat.settings.jobs import Factor
from pat.settings.mistakes import nearest, shown
from study.experiment.methods import MASKED_TUNERS
from study.experiment.schema import FIGURES_OF_MASKS, FIGURES_OF_TASKS, Experiment, Figure

ROW_COLUMNS = ("ratio", "method", "label", "mode")  # they name a row in the CSV of every table


def table_problems(experiment: Experiment) -> Iterator[str]:
    """Check which row is the reference, and that every row with factors has its own place in an ablation table."""
    rows, reference, ablations = experiment.methods, experiment.tables.reference, experiment.tables.ablations
    if reference is not None and reference not in rows:
        yield f"tables.reference: {shown(reference)} is not a row of methods{nearest(reference, rows)}"
    known = {factor for factors in ablations.values() for factor in factors}
    for row in rows:
        own = experiment.row(row).factors
        unknown = [factor for factor in own if factor not in known]
        for factor in unknown:
            no_tables = "" if known else "; no table shows factors: name them in tables.ablations"
            yield f"methods.{row}.factors.{factor}: unknown factor{nearest(factor, known)}{no_tables}"
        placed = {factor for factors in ablations.values() if own.keys() >= set(factors) for factor in factors}
        if alone := [factor for factor in own if factor not in placed and factor not in unknown]:
            listed = " or ".join(f"{', '.join(factors)} ({name})" for name, factors in ablations.items() if set(factors) & set(alone))
            yield f"methods.{row}.factors: gives {', '.join(alone)} alone: must give all factors of a table: {listed}"
    for name, factors in ablations.items():
        for factor in (factor for factor in factors if factor in ROW_COLUMNS):
            yield f"tables.ablations.{name}: the factor {shown(factor)} is not allowed: a column of every table is called so"
        placed_rows = {(row, method.prunes): experiment.row(row).factors for row, method in experiment.known_rows.items()}
        yield from _places(name, factors, placed_rows)


def _places(name: str, factors: Sequence[str], rows: Mapping[tuple[str, bool], Mapping[str, Factor]]) -> Iterator[str]:
    """Check one ablation table: that it has rows, and that its factors tell those apart that all prune, or all do not."""
    taken: dict[tuple[str, bool], str] = {}
    for (row, prunes), own in rows.items():
        if not factors or not own.keys() >= set(factors):
            continue
        place = ", ".join(f"{factor} {shown(own[factor])}" for factor in factors)
        if first := taken.get((place, prunes)):
            yield f"methods.{row}.factors: has the place of {first!r} in tables.ablations.{name} ({place}): must differ in a factor"
        taken[place, prunes] = row
    if factors and not taken:
        yield f"tables.ablations.{name}: no row has its factors ({', '.join(factors)}); give them to rows as methods.<row>.factors"


def figure_problems(experiment: Experiment) -> Iterator[str]:
    """Check that there is data for every figure that the file names."""
    masked = any(method.tuner in MASKED_TUNERS for method in experiment.known_rows.values())
    needs: dict[Figure, tuple[str, bool]] = {
        **dict.fromkeys(FIGURES_OF_TASKS, ("a task in data.tasks", bool(experiment.data.tasks))),
        **dict.fromkeys(FIGURES_OF_MASKS, ("a method that trains a mask", masked)),
        "perplexity": ("a text in data.text", bool(experiment.data.text)),
        "speedup": ("benchmark.inference", experiment.benchmark is not None and experiment.benchmark.inference is not None),
    }
    for name in experiment.figures or ():
        need, there = needs[name]
        if not there:
            yield f"figures: {shown(name)} needs {need}, which the experiment does not have"
