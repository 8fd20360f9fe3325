"""Several measurements of one thing as a median with its spread, and the ratio of two that were taken in turn."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median


def spread(samples: Sequence[float]) -> dict[str, object]:
    """Return median, smallest and largest of the samples, and the samples themselves."""
    return {"median": median(samples), "low": min(samples), "high": max(samples), "samples": list(samples)}


def speedup(unpruned_s: Sequence[float], narrower_s: Sequence[float]) -> dict[str, object]:
    """Return how many times faster the second is, round by round: both were measured one after the other in each."""
    return spread([slow / fast for slow, fast in zip(unpruned_s, narrower_s, strict=True)])
