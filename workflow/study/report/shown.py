"""What Snakemake's report shows of an experiment's tables: those that there are, each with its category, caption and labels.

Which tables an experiment has is known when they are written; the rules declare their manifest alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from study.results.cells import METRIC_LABELS

CAPTIONS = "../report/tables"
"""Where the captions lie, as seen from the rules."""
KINDS = {
    "table1": "mean accuracy",
    "table3": "mean accuracy",
    "per_task": "accuracy of each task",
    "perplexity_comparisons": "perplexity, compared",
    "perplexity": "perplexity",
    "comparisons": "accuracy, compared",
    "ablation": "ablation",
    "harness": "lm-eval's own tasks",
    "sizes": "sizes",
    "rates": "learning rates that were searched",
    "rotations": "changes of basis",
    "fits": "fits of readers",
    "ridges": "ridges of fits of readers",
}
"""What the name of a table begins with, and what the report calls it; a longer beginning comes before a shorter one."""
ALL_RUNS = dict.fromkeys(("model", "row", "ratio", "seed"), "all")
APART = {
    "health": ("Health", {"what": "every tuning, as a table"} | ALL_RUNS),
    "masks": ("Health", {"what": "which channels the trained masks keep"} | ALL_RUNS),
    "provenance": ("Provenance", {"what": "the steps that made each cell"}),
    "cells": ("Provenance", {"what": "every number with its record, as CSV"}),
}
"""Of what stands in another category than the tables: which, and by what it is found there."""


@dataclass(frozen=True)
class Shown:
    """A file of the report: its caption as a path from the rules, its category, and the columns by which it is found there."""

    path: str
    caption: str
    category: str
    labels: Mapping[str, str]


def shown_tables(results: Path) -> list[Shown]:
    """Return the pages of an experiment's tables that are there now; the CSV files of one that was finished before there were pages."""
    tables = results / "tables"
    found = [*(sorted(tables.glob("*.html")) or sorted(set(tables.glob("*.csv")) - {tables / "cells.csv"})), tables / "cells.csv"]
    return [shown for path in found if path.is_file() and (shown := _shown(path)) is not None]


def _shown(path: Path) -> Shown | None:
    name = path.stem
    if name in APART:
        category, labels = APART[name]
        return Shown(path.as_posix(), f"{CAPTIONS}/{name}.rst", category, labels)
    kind = next((kind for kind in KINDS if name == kind or name.startswith(f"{kind}_")), None)
    if kind is None:
        return None
    of, metric = _parts(name.removeprefix(kind))
    labels = {"what": KINDS[kind], "of": of or "all", "scored by": METRIC_LABELS[metric] if metric else "the experiment's first scoring"}
    if kind in ("sizes", "rates", "rotations", "fits", "ridges", "harness", "perplexity", "perplexity_comparisons"):
        labels["scored by"] = "–"
    return Shown(path.as_posix(), f"{CAPTIONS}/{kind}.rst", "Tables", labels)


def _parts(rest: str) -> tuple[str, str]:
    """Return of which model or ablation a table is, and its scoring, from the end of its name; empty where it does not say."""
    metrics = sorted(METRIC_LABELS, key=len, reverse=True)
    metric = next((metric for metric in metrics if rest.endswith(f"_{metric}")), "")
    return rest.removesuffix(f"_{metric}" if metric else "").strip("_"), metric
