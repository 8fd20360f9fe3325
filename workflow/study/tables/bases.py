"""Lays out what was done to bases before any tuning, by their records: changes of basis, fits of readers, ridges. Writes nothing.

A fit is judged by calibration text that it has not seen, in the base whose dead channels are at zero.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import pandas as pd

from pat.checkpoints.readers_record import HELD_OUT, SECOND_TEXT
from study.plan.bases import UNTIED
from study.results.base_records import BaseRecord, Readers, Rotation
from study.statistics.intervals import Estimate, estimate
from study.tables.accuracy import percent, with_interval
from study.tables.layouts import HOLE, Layout

PLAIN = "plain"
PLACE = ("Model", "Pruned", "Basis", "Mask")
"""The headings of where a fit stands."""
OF_SECOND_TEXT = "second text: one of data.text, on which nothing is fitted or chosen"
RATIOS = {"ratio": 4, "refitted_over_plain": 3, "massive_missed_plain": 4, "massive_missed_refitted": 4}
"""Digits of figures that are no perplexity; a perplexity has two."""
OVER_SEEDS = "±: 95 % interval of the mean over seeds (Student t). Each seed has its own rows of the calibration text, those held out too."
OVER_TOKENS = "With one seed ± is that of the ratio over the text's tokens."
UNTOLD = f"{HOLE}: the records of some seeds do not tell it (an earlier version's, or without a second text), or it differs between seeds."
Found = TypeVar("Found", bound=BaseRecord)


def rotations(records: Sequence[Rotation], experiment: str) -> tuple[Layout, pd.DataFrame] | None:
    """Return a line per model and basis, means over seeds; None where no base was moved by more than rounding."""
    lines = _lines((it for it in records if it.text is not None), lambda it: (it.model, it.basis))
    if not lines:
        return None
    body, frames = list[list[str]](), []
    for seeds in lines:
        one, moved = seeds[0], [it.text for it in seeds if it.text is not None]
        figures = {
            "before": _mean(it.perplexity_before for it in moved),
            "after": _mean(it.perplexity_after for it in moved),
            "ratio": estimate([it.perplexity_ratio for it in moved], [it.perplexity_ratio_error for it in moved]),
        }
        counts = {
            "apart": _same(len(it.apart) for it in seeds),
            "tokens": _same(it.tokens for it in seeds),
            "tokens_held_out": _same(it.tokens for it in moved),
            "seeds": len(seeds),
        }
        body.append([one.model, _basis(one.basis), *_entries(figures), *map(_count, counts.values())])
        frames.append({"model": one.model, "basis": one.basis, **counts, **_columns(figures)})
    header = ["Model", "Basis", "before", "after", "after / before", "channels apart", "tokens", "tokens held out", "seeds"]
    caption = f"{experiment}: perplexity before and after a change of basis, of calibration text that the basis was not measured on."
    notes = [
        "Of models whose embedding and head are one matrix and stay one: elsewhere a change of basis is exact but for rounding.",
        "channels apart: those that are not rotated; tokens: those that the basis was measured on.",
        *_over_seeds(lines),
        OVER_TOKENS,
    ]
    return _laid_out(caption, header, body, 2, notes), _frame(frames, counts)


def fits(records: Sequence[Readers], experiment: str) -> tuple[Layout, pd.DataFrame] | None:
    """Return a line per model, ratio, basis and mask, means over seeds; None where no fit was measured on text."""
    lines = _lines((it for it in records if HELD_OUT in it.text), _place_of_fit)
    if not lines:
        return None
    body, frames = list[list[str]](), []
    for seeds in lines:
        one, figures = seeds[0], _of_fit(seeds)
        counts = {
            "kept": _same(len(it.kept) for it in seeds),
            "tokens": _same(it.tokens for it in seeds),
            "tokens_held_out": _same(it.text[HELD_OUT].tokens for it in seeds),
            "seeds": len(seeds),
        }
        second = _second_text(seeds)
        body.append([*_place(one), _chosen(seeds), second or HOLE, *_entries(figures), *map(_count, counts.values())])
        frames.append({**_named(one), "chosen": _chosen(seeds), "second_text": second, **counts, **_columns(figures)})
    header = [*PLACE, "Chosen", "Second text", "whole", "cut, plain", "cut, refitted", "refitted / plain", "second text, plain",
              "second text, refitted", "missed of massive tokens, plain", "and refitted", "channels", "tokens", "tokens held out",
              "seeds"]  # fmt: skip
    caption = (
        f"{experiment}: what fits of readers gave before any tuning, in perplexity of calibration text held out of them; lower is better."
    )
    notes = [
        "whole: the base; cut, plain: without the channels that go, its readers as they were; cut, refitted: with the readers that were "
        "written; refitted / plain: the mean of each seed's.",
        "Chosen is, of the fits that were tried (table ridges), the one of least perplexity: to the stream of the unpruned base, or to "
        f"that of the pruned one, at a ridge; {PLAIN} readers where none is below that of the cut alone.",
        "missed of massive tokens: the largest share that readers miss of a norm's output on tokens far above the others, the attention "
        "sinks, of all norms.",
        f"{OF_SECOND_TEXT}; channels: those that are kept; tokens: those that the readers are fitted to.",
        *_over_seeds(lines),
    ]
    return _laid_out(caption, header, body, 6, notes), _frame(frames, counts)


def ridges(records: Sequence[Readers], experiment: str) -> tuple[Layout, pd.DataFrame] | None:
    """Return a line per fit that was tried of each model, ratio, basis and mask, means over seeds; None where none is on record."""
    body, frames = list[list[str]](), []
    lines = _lines((it for it in records if it.tried), _place_of_fit)
    for seeds in lines:
        one, second = seeds[0], _second_text(seeds)
        of_seeds = [{(it.seen, it.ridge): it for it in record.tried} for record in seeds]
        for way in dict.fromkeys(way for ways in of_seeds for way in ways):
            tried = [ways.get(way) for ways in of_seeds]
            figures = {
                "held_out": _mean(None if it is None else it.perplexity for it in tried),
                "second_text": _mean(None if it is None or second is None else it.second_text for it in tried),
            }
            counts = {"chosen": sum((it.seen, it.ridge) == way for it in seeds), "seeds": len(seeds)}
            body.append([*_place(one), way[0], second or HOLE, f"{way[1]}", *_entries(figures), *map(_count, counts.values())])
            frames.append({**_named(one), "fitted_to": way[0], "second": second, "ridge": way[1], **counts, **_columns(figures)})
    if not lines:
        return None
    header = [*PLACE, "Fitted to", "Second text", "Ridge", "held-out text", "second text", "chosen in", "seeds"]
    caption = f"{experiment}: perplexity with every fit of readers that was tried, before any tuning; lower is better."
    notes = [
        "Fitted to the stream of the unpruned base, or to that of the pruned one behind readers that are fitted already.",
        "held-out text: calibration text that nothing is fitted to, which chooses; table fits has it without a fit.",
        "Measured before the model is written in the base's precision, and so not to the last digit what table fits has.",
        f"{OF_SECOND_TEXT}; chosen in: how many seeds, none at any ridge where the readers stay plain.",
        *_over_seeds(lines),
    ]
    return _laid_out(caption, header, body, 6, notes), pd.DataFrame(frames)


def _place_of_fit(record: Readers) -> tuple[str | float, ...]:
    """Return what the seeds of a line of fits have in common."""
    return record.model, record.ratio, record.basis, record.mask, record.align


def _second_text(seeds: Sequence[Readers]) -> str | None:
    """Return what the second text of a line is called; None where there is none, or seeds have different ones."""
    found = {it.second_text for it in seeds}
    return found.pop() if len(found) == 1 else None


def _place(record: Readers) -> list[str]:
    """Return the same as it is printed, under PLACE."""
    mask = record.mask if record.align == "auto" else f"{record.mask}, aligned to {record.align}"
    return [record.model, percent(record.ratio), _basis(record.basis), mask]


def _named(record: Readers) -> dict[str, str | float]:
    """Return the same for the CSV."""
    return dict(zip(("model", "ratio", "basis", "mask", "align"), _place_of_fit(record), strict=True))


def _over_seeds(lines: Iterable[Sequence[BaseRecord]]) -> list[str]:
    return [OVER_SEEDS] if any(len(seeds) > 1 for seeds in lines) else []


def _laid_out(caption: str, header: Sequence[str], body: Sequence[Sequence[str]], text_columns: int, notes: Sequence[str]) -> Layout:
    """Return a table that says what its holes are, where it has any."""
    return Layout(caption, header, body, text_columns, [*notes, UNTOLD] if any(HOLE in row for row in body) else notes)


def _frame(lines: Sequence[Mapping[str, object]], counts: Iterable[str]) -> pd.DataFrame:
    """Return a table's CSV, whose counts are whole numbers where some are unknown too."""
    return pd.DataFrame(lines).astype(dict.fromkeys(counts, "Int64"))


def _of_fit(seeds: Sequence[Readers]) -> dict[str, Estimate | None]:
    """Return the figures of one line, in the order of its columns."""
    judged, named = [it.text[HELD_OUT] for it in seeds], _second_text(seeds)
    second = [it.text.get(SECOND_TEXT) if named else None for it in seeds]
    massive = [it.massive for it in seeds]
    return {
        "whole": _mean(it.base for it in judged),
        "plain": _mean(it.plain for it in judged),
        "refitted": _mean(it.refitted for it in judged),
        "refitted_over_plain": _mean(it.refitted / it.plain for it in judged),
        "second_text_plain": _mean(None if it is None else it.plain for it in second),
        "second_text_refitted": _mean(None if it is None else it.refitted for it in second),
        "massive_missed_plain": _mean(None if it is None else it.plain for it in massive),
        "massive_missed_refitted": _mean(None if it is None else it.refitted for it in massive),
    }


def _lines(records: Iterable[Found], place: Callable[[Found], tuple[str | float, ...]]) -> list[list[Found]]:
    """Return the seeds of each line, the lines in the order of their places."""
    lines: dict[tuple[str | float, ...], list[Found]] = {}
    for it in sorted(records, key=lambda it: (place(it), it.seed)):
        lines.setdefault(place(it), []).append(it)
    return list(lines.values())


def _mean(values: Iterable[float | None]) -> Estimate | None:
    """Return the mean over seeds; None where one of them does not tell its value, of which a mean of the others would be none."""
    found = list(values)
    known = [value for value in found if value is not None]
    return estimate(known, [None] * len(known)) if len(known) == len(found) else None


def _way(seen: str, ridge: float) -> str:
    return f"{seen}, {ridge}"


def _chosen(seeds: Sequence[Readers]) -> str:
    """Return the fit that was chosen; where seeds differ each, with how many of them."""
    chosen = Counter(_fit_of(it) for it in seeds)
    return next(iter(chosen)) if len(chosen) == 1 else "; ".join(f"{way} ({count})" for way, count in chosen.most_common())


def _fit_of(record: Readers) -> str:
    if record.applied is None:
        return HOLE
    return _way(record.seen or "", record.ridge or 0.0) if record.applied else PLAIN


def _basis(name: str) -> str:
    """Return what a table calls a basis by its name in paths."""
    return f"{name.removesuffix(UNTIED)}, untied" if name.endswith(UNTIED) else name


def _same(counts: Iterable[int | None]) -> int | None:
    """Return the number that all seeds have; None where they differ, or one does not tell it."""
    found = set(counts)
    return found.pop() if len(found) == 1 else None


def _count(number: int | None) -> str:
    return HOLE if number is None else f"{number:,}"


def _entries(figures: Mapping[str, Estimate | None]) -> list[str]:
    return [with_interval(value, RATIOS.get(name, 2), 1.0) for name, value in figures.items()]


def _columns(figures: Mapping[str, Estimate | None]) -> dict[str, float | None]:
    """Return the same for the table's CSV."""
    columns: dict[str, float | None] = {}
    for name, value in figures.items():
        columns |= {name: None if value is None else value.mean, f"{name} ci95": None if value is None else value.half_width}
    return columns
