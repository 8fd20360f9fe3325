"""The table of how long the jobs of an experiment took, step by step, and the same in a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from statistics import median
from types import MappingProxyType
from typing import Any

import pandas as pd

from study.results.times import JobTime, RunTime, whole
from study.tables.layouts import HOLE, Layout

TOTAL = "all"
SAMPLED = (
    "Processor time is what Snakemake sampled, in the first 15 s of a job every half second and then every 30 s: what a job used after its "
    "last sample is missing. Times of a job that was begun more than once are those of its last attempt. Jobs of "
    "cells that the tables no longer have are left out."
)


def times_table(
    jobs: Sequence[JobTime], name: str, machine: str, unmeasured: Mapping[str, int] = MappingProxyType({})
) -> tuple[Layout, pd.DataFrame]:
    """Return the printed table, a line per step in the order in which they began, and its figures in seconds.

    `unmeasured` says of how many jobs of each step nothing is known.
    """
    steps: dict[str, list[JobTime]] = {}
    for job in jobs:
        steps.setdefault(job.step, []).append(job)
    found = [(step, of_step, whole(of_step)) for step, of_step in [*steps.items(), (TOTAL, list(jobs))]]
    rows = [
        [step, str(told.jobs), *map(duration, (median(walls(of)), max(walls(of)), told.wall_s)), _processor(of, told)]
        for step, of, told in found
    ]
    frame = pd.DataFrame(
        {
            "step": step,
            "jobs": told.jobs,
            "median_s": median(walls(of)),
            "maximum_s": max(walls(of)),
            "sum_s": told.wall_s,
            "processor_s": told.processor_s,
            "first_start": _clock(min(job.started_s for job in of)),
            "last_end": _clock(max(job.ended_s for job in of)),
        }
        for step, of, told in found
    )
    header = ["step", "jobs", "median", "maximum", "sum", "processor time, at least"]
    caption = f"How long the jobs of {name} took" + (f", on {machine}" if machine else "")
    return Layout(caption, header, rows, 1, [sentence(found[-1][2].record(), unmeasured), SAMPLED]), frame


def walls(jobs: Sequence[JobTime]) -> list[float]:
    """Return the jobs' wall times in seconds."""
    return [job.wall_s for job in jobs]


def _processor(jobs: Sequence[JobTime], told: RunTime) -> str:
    return HOLE if all(job.processor_s is None for job in jobs) else duration(told.processor_s)


def sentence(record: Mapping[str, Any], unmeasured: Mapping[str, int] = MappingProxyType({})) -> str:
    """Return in words what a run took, from its record (RunTime), and of how many jobs of each step that is not known."""
    told = RunTime(**record)
    jobs = "The job" if told.jobs == 1 else f"The {told.jobs} jobs"
    pauses = f" ({duration(told.span_s)} with pauses)" if told.paused else ""
    without = ", ".join(f"{count} of {step}" for step, count in sorted(unmeasured.items()))
    return (
        f"{jobs} took {duration(told.busy_s)}{pauses}, {duration(told.wall_s)} one after another, "
        f"at least {duration(told.processor_s)} of processor time."
        f"{f' Jobs whose times were left behind are not counted: {without}.' if without else ''}"
    )


def duration(seconds: float) -> str:
    """Return a time in the two units in which it is read."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
