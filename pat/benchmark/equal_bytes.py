"""A pruned model in a format beside the unpruned one, only quantised, at as many bytes. Measures nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

Point = Mapping[str, Any]
"""A model in a format: `model`, `format`, and where the format was not refused, `bytes` and `perplexity`, by text."""


def at_equal_bytes(points: Sequence[Point]) -> list[dict[str, Any]]:
    """Return each point of a later model beside what the first one, only quantised, has in as many bytes.

    That lies on the line between two neighbours among its formats, in the logarithms of bytes and perplexity; formats that a smaller one
    beats do not count, so that in more bytes than all that do it is what the last of them has. None in fewer bytes than any has.
    """
    whole = [point for point in points if point["model"] == points[0]["model"] and "bytes" in point]
    return [
        {
            "model": point["model"], "format": point["format"], "bytes": point["bytes"], "text": text, "perplexity": value,
            "only_quantised": _in_bytes(best(_sizes(whole, text)), point["bytes"]),
        }
        for point in points
        if point["model"] != points[0]["model"] and "bytes" in point
        for text, value in point["perplexity"].items()
        if value is not None
    ]  # fmt: skip


def _sizes(points: Iterable[Point], text: str) -> Iterator[tuple[int, float]]:
    """Yield bytes and perplexity of the points whose perplexity is not too large for a number."""
    yield from ((it["bytes"], it["perplexity"][text]) for it in points if it["perplexity"][text] is not None)


def best(points: Iterable[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return the points, bytes and perplexity, which no smaller one beats, the smallest first."""
    kept: list[tuple[int, float]] = []
    for size, value in sorted(points):
        if not kept or value < kept[-1][1]:
            kept.append((size, value))
    return kept


def _in_bytes(line: Sequence[tuple[int, float]], bytes_: int) -> float | None:
    for (smaller, before), (larger, behind) in pairwise(line):
        if smaller <= bytes_ <= larger:
            share = math.log(bytes_ / smaller) / math.log(larger / smaller)
            return math.exp((1 - share) * math.log(before) + share * math.log(behind))
    return line[-1][1] if line and bytes_ >= line[-1][0] else None
