"""Names that become parts of paths, and of the names of tables."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pat.settings.mistakes import shown
from study.experiment.checks.rows import ROW_COLUMNS
from study.experiment.schema import Experiment
from study.experiment.table_settings import METRICS

SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
RESERVED = {
    "name": ("reference",),
    "models": ("data", "models", "rotated", "refitted", "encoded", "tables", "figures", "logs", "benchmark", "benchmarks", "text"),
    "methods": ("measured",),  # what a benchmark weighed, in the figure of memory
    "data.text": ("pretrain",),  # the pretraining corpus lies beside the held-out texts
}
TASK_COLUMNS = (*ROW_COLUMNS, "mean")
"""Of the table that has a column per task."""
OF_TABLES = ("models", "tables.ablations")
"""What has tables of its own, one for each scoring, which is behind its name."""


def name_problems(experiment: Experiment) -> Iterator[str]:
    """Check that every name can be a folder's or a file's, and is not that of something else in the results."""
    named = {
        "name": [experiment.name],
        "models": experiment.models,
        "methods": experiment.methods,
        "data.tasks": experiment.data.tasks,
        "data.text": experiment.data.text,
        "tables.ablations": experiment.tables.ablations,
        "benchmark.shapes": experiment.benchmark.shapes if experiment.benchmark else (),
    }
    for field, name in ((field, name) for field, names in named.items() for name in names):
        if not SAFE_NAME.fullmatch(name):
            yield (
                f"{field}: the name {shown(name)} is not allowed: it becomes part of a path and must be of letters, digits, '.', '_' "
                "and '-', at most 64, the first a letter or digit"
            )
        if field in OF_TABLES and (ending := next((each for each in METRICS if name.endswith(f"_{each}")), None)):
            yield (
                f"{field}: the name {shown(name)} is not allowed: a table that ends in _{ending} is the one of that scoring; choose "
                "another name"
            )
        if field == "data.tasks" and name in TASK_COLUMNS:
            yield f"{field}: the name {shown(name)} is not allowed: a column of the table per task is called so; choose another name"
        if name in RESERVED.get(field, ()):
            yield f"{field}: the name {shown(name)} is reserved for something else in the results; choose another"
