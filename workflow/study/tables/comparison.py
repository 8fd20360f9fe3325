"""Compares the accuracies of every row with the experiment's reference row's, paired over items, and lays it out. Writes nothing.

Differences of accuracies are in percentage points here, as accuracies are in percent in every table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from study.results.cells import METRIC_LABELS
from study.results.grid import Grid
from study.statistics.intervals import LEVEL, student_half_width
from study.statistics.paired_tests import RESAMPLES, Interval, McNemar, holm, mcnemar, paired_bootstrap
from study.tables.accuracy import percent, signed
from study.tables.layouts import HOLE, Layout
from study.tables.pairs import BETTER, NO_DIFFERENCE, ONE_SEED, WORSE, Pair, names_of, p_text, pairs_of

POINTS = 100.0


@dataclass(frozen=True)
class Compared:
    """One pair's accuracies: difference of the task mean, intervals, and McNemar's test, over the seeds both rows have."""

    pair: Pair
    ours: float
    theirs: float
    seeds: Sequence[int]
    over_items: Interval
    over_seeds: Interval | None
    test: McNemar

    @property
    def difference(self) -> float:
        """The method's mean minus that of what it is compared with."""
        return self.ours - self.theirs

    def verdict(self, corrected: float) -> str:
        """Return a plain word: a difference is named only where both intervals and the corrected test show it, all on the same side.

        The test counts items, the intervals are of the mean over tasks: where tasks differ in size the two may point apart.
        """
        sides = {self.over_items.side, self.test.side} | ({self.over_seeds.side} if self.over_seeds else set())
        if corrected >= 1 - LEVEL or len(sides) > 1 or 0 in sides:
            return NO_DIFFERENCE
        return BETTER if self.difference > 0 else WORSE


def comparisons(grid: Grid, reference: str | None = None) -> tuple[Layout, pd.DataFrame] | None:
    """Return the paired comparison of accuracies under the grid's metric, nothing where no pair has its items' outcomes."""
    found = [it for pair in pairs_of(grid.cells, reference) if (it := compared(grid, pair)) is not None]
    if not found:
        return None
    corrected = holm([it.test.p_value for it in found])
    body = [_entries(it, p_value) for it, p_value in zip(found, corrected, strict=True)]
    frame = pd.DataFrame([_record(it, p_value) for it, p_value in zip(found, corrected, strict=True)])
    header = ["Model", "Pruned", "Method", "Mode", "mean", "compared with", "mean", "Δ", "95 % over items", "95 % over seeds",
              "seeds", "better : worse", "p", "p, Holm", "Δ is"]  # fmt: skip
    return Layout(_caption(grid), header, body, text_columns=4, notes=_notes(found)), frame


def compared(grid: Grid, pair: Pair) -> Compared | None:
    """Return one pair's comparison, nothing where they have no seed in common whose items' outcomes are known."""
    ours, theirs = grid.right_answers(pair.model, pair.row), grid.right_answers(pair.model, pair.reference)
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return None
    tasks = range(len(grid.tasks))
    by_item = [_item_differences([ours[seed][task] for seed in seeds], [theirs[seed][task] for seed in seeds]) for task in tasks]
    by_seed = [_task_mean(ours[seed]) - _task_mean(theirs[seed]) for seed in seeds]
    width = student_half_width(by_seed)
    return Compared(
        pair,
        fmean(_task_mean(ours[seed]) for seed in seeds),
        fmean(_task_mean(theirs[seed]) for seed in seeds),
        seeds,
        paired_bootstrap(by_item),
        None if width is None else Interval(fmean(by_seed) - width, fmean(by_seed) + width),
        mcnemar(np.concatenate(by_item)),
    )


def _item_differences(ours: Sequence[NDArray[np.bool_]], theirs: Sequence[NDArray[np.bool_]]) -> NDArray[np.float64]:
    """Return ours minus theirs of every item, averaged over the seeds; counted in whole numbers, so that as many is exactly 0."""
    difference: NDArray[np.float64] = (np.sum(ours, axis=0, dtype=int) - np.sum(theirs, axis=0, dtype=int)) / len(ours)
    return difference


def _task_mean(right: Sequence[NDArray[np.bool_]]) -> float:
    return fmean(float(task.mean()) for task in right)


def _entries(it: Compared, corrected: float) -> list[str]:
    row, other = it.pair.row, it.pair.reference
    return [
        it.pair.model, percent(row.ratio), row.label, row.mode, f"{POINTS * it.ours:.1f}", f"{other.name} at {percent(other.ratio)}",
        f"{POINTS * it.theirs:.1f}", signed(POINTS * it.difference), _interval(it.over_items), _interval(it.over_seeds),
        str(len(it.seeds)), f"{it.test.ours_better} : {it.test.theirs_better}", p_text(it.test.p_value), p_text(corrected),
        it.verdict(corrected),
    ]  # fmt: skip


def _interval(value: Interval | None) -> str:
    return HOLE if value is None else f"{signed(POINTS * value.low)} … {signed(POINTS * value.high)}"


def _record(it: Compared, corrected: float) -> dict[str, object]:
    over_seeds = it.over_seeds
    return {
        **names_of(it.pair),
        "mean": POINTS * it.ours,
        "reference_mean": POINTS * it.theirs,
        "difference": POINTS * it.difference,
        "items_low": POINTS * it.over_items.low,
        "items_high": POINTS * it.over_items.high,
        "seeds_low": None if over_seeds is None else POINTS * over_seeds.low,
        "seeds_high": None if over_seeds is None else POINTS * over_seeds.high,
        "seeds": len(it.seeds),
        "items_better": it.test.ours_better,
        "items_worse": it.test.theirs_better,
        "p": it.test.p_value,
        "p_holm": corrected,
        "verdict": it.verdict(corrected),
    }


def _caption(grid: Grid) -> str:
    scoring = METRIC_LABELS.get(grid.metric, grid.metric)
    return (
        f"{grid.cells[0].experiment}: paired comparisons of the mean accuracy of {len(grid.tasks)} task(s), in percent; "
        f"Δ: the method minus what it is compared with, in points. Scoring: {scoring}."
    )


def _notes(found: Sequence[Compared]) -> list[str]:
    numbers = sorted({len(it.seeds) for it in found})
    counted = " to ".join(str(number) for number in dict.fromkeys((numbers[0], numbers[-1])))
    notes = [
        f"95 % over items: paired bootstrap, {RESAMPLES:,} resamples within each task, each item's difference averaged over its seeds "
        f"({counted}).",
        "better : worse: items of all tasks that the method answers right more often, and less often, over its seeds; p: McNemar's exact "
        f"test on them, with several seeds a sign test; p, Holm: corrected for the {len(found)} comparisons of this table.",
        f"A difference is called one where the corrected p is below {1 - LEVEL:.2g} and no interval covers 0; else: {NO_DIFFERENCE}.",
    ]
    if any(it.over_seeds for it in found):
        notes.insert(1, "95 % over seeds: Student t of the paired differences.")
    return [*notes, ONE_SEED] if numbers[0] == 1 else notes
