"""Compares the perplexities of every row with the experiment's reference row's, paired over seeds and pieces of text, and lays it out.

Writes nothing. Within a pair the tokenizer is one, so that its perplexities per token compare.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import pandas as pd

from study.results.grid import Grid, texts_of
from study.statistics.intervals import LEVEL, student_half_width
from study.statistics.paired_tests import Interval, PieceTest, holm, over_pieces, paired_t
from study.tables.accuracy import decimals, percent
from study.tables.layouts import HOLE, Layout
from study.tables.pairs import BETTER, NO_DIFFERENCE, ONE_SEED, WORSE, Pair, names_of, p_text, pairs_of

UNTESTED = "not tested"
ONE_DOCUMENT = "Of a text that is one document, of its windows, neighbours taken for related (Newey and West)."


@dataclass(frozen=True)
class Ratio:
    """One pair's perplexities on one text: their ratio, its 95 % intervals, and the p-value of a ratio of 1."""

    pair: Pair
    text: str
    ours: float
    theirs: float
    value: float
    seeds: int
    over_seeds: Interval | None
    over_text: Interval | None
    p_value: float | None

    def verdict(self, corrected: float | None) -> str:
        """Return a plain word: a difference is named only where the intervals and the corrected test show it."""
        if corrected is None:
            return NO_DIFFERENCE if self.value == 1 else UNTESTED
        covered = any(interval.low <= 1 <= interval.high for interval in (self.over_seeds, self.over_text) if interval)
        if corrected >= 1 - LEVEL or covered:
            return NO_DIFFERENCE
        return BETTER if self.value < 1 else WORSE


def perplexity_comparisons(grid: Grid, reference: str | None = None) -> tuple[Layout, pd.DataFrame] | None:
    """Return the paired comparison of token perplexities, nothing where there is no pair."""
    found = [it for pair in pairs_of(grid.cells, reference) for it in _ratios(grid, pair)]
    if not found:
        return None
    tested = iter(holm([it.p_value for it in found if it.p_value is not None]))
    corrected = [None if it.p_value is None else next(tested) for it in found]
    body = [_entries(it, p_value) for it, p_value in zip(found, corrected, strict=True)]
    frame = pd.DataFrame([_record(it, p_value) for it, p_value in zip(found, corrected, strict=True)])
    caption = (
        f"{grid.cells[0].experiment}: paired comparisons of token perplexity; ratio: the method's over that of what it is compared with, "
        "below 1 is better."
    )
    tests = sum(it.p_value is not None for it in found)
    notes = [
        "ratio: geometric mean over the seeds both have; over seeds: Student t of the paired logarithms; over the text: of the paired "
        f"losses of its documents, seeds averaged (linearised ratio of sums). {ONE_DOCUMENT}",
        f"p: Student t over seeds, with one seed over the text; p, Holm: corrected for the {tests} tests of this table.",
        f"A ratio is called {BETTER} or {WORSE} where the corrected p is below {1 - LEVEL:.2g} and no interval covers 1; else: "
        f"{NO_DIFFERENCE}.",
    ]
    if any(it.seeds == 1 for it in found):
        notes.append(ONE_SEED)
    header = ["Model", "Text", "Pruned", "Method", "Mode", "perplexity", "compared with", "perplexity", "ratio", "95 % over seeds",
              "95 % over the text", "seeds", "p", "p, Holm", "the method is"]  # fmt: skip
    return Layout(caption, header, body, text_columns=5, notes=notes), frame


def _ratios(grid: Grid, pair: Pair) -> Iterator[Ratio]:
    for text in texts_of(grid.cells):
        ours, theirs = (grid.seed_perplexities(pair.model, row, text, "token") for row in (pair.row, pair.reference))
        seeds = sorted(ours.keys() & theirs.keys())
        if not seeds:
            continue
        logs = [math.log(ours[seed]) - math.log(theirs[seed]) for seed in seeds]
        width, p_value = student_half_width(logs), paired_t(logs)
        tested = _over_pieces(grid, pair, text, seeds)
        yield Ratio(
            pair,
            text,
            fmean(ours[seed] for seed in seeds),
            fmean(theirs[seed] for seed in seeds),
            math.exp(fmean(logs)),
            len(seeds),
            None if width is None else Interval(math.exp(fmean(logs) - width), math.exp(fmean(logs) + width)),
            None if tested is None else Interval(math.exp(tested.interval.low), math.exp(tested.interval.high)),
            tested.p_value if tested is not None and p_value is None else p_value,
        )


def _over_pieces(grid: Grid, pair: Pair, text: str, seeds: list[int]) -> PieceTest | None:
    """Return the test over the text's pieces, nothing where a cell does not tell their losses, or cuts the text otherwise."""
    ours, theirs = (grid.losses(pair.model, row, text) for row in (pair.row, pair.reference))
    if not set(seeds) <= ours.keys() & theirs.keys():
        return None
    first = ours[seeds[0]]
    if any(rows[seed].tokens != first.tokens for rows in (ours, theirs) for seed in seeds):
        return None
    differences = np.mean([np.subtract(ours[seed].losses, theirs[seed].losses) for seed in seeds], axis=0)
    return over_pieces(differences, np.asarray(first.tokens), first.neighbours)


def _entries(it: Ratio, corrected: float | None) -> list[str]:
    row, other = it.pair.row, it.pair.reference
    return [
        it.pair.model, it.text, percent(row.ratio), row.label, row.mode, decimals(it.ours, 2), f"{other.name} at {percent(other.ratio)}",
        decimals(it.theirs, 2), decimals(it.value, 3), _interval(it.over_seeds), _interval(it.over_text), str(it.seeds),
        p_text(it.p_value), p_text(corrected), it.verdict(corrected),
    ]  # fmt: skip


def _interval(value: Interval | None) -> str:
    return HOLE if value is None else f"{decimals(value.low, 3)} … {decimals(value.high, 3)}"


def _record(it: Ratio, corrected: float | None) -> dict[str, object]:
    intervals = {"seeds": it.over_seeds, "text": it.over_text}
    return {
        **names_of(it.pair),
        "text": it.text,
        "perplexity": it.ours,
        "reference_perplexity": it.theirs,
        "ratio_of_perplexities": it.value,
        **{f"{name}_low": None if interval is None else interval.low for name, interval in intervals.items()},
        **{f"{name}_high": None if interval is None else interval.high for name, interval in intervals.items()},
        "seeds": it.seeds,
        "p": it.p_value,
        "p_holm": corrected,
        "verdict": it.verdict(corrected),
    }
