"""The records of ten cells of a grid that was made in parts, as they came home: without weights and data."""

from __future__ import annotations

from pathlib import Path

from study.experiment.extends import read_resolved
from study.experiment.file import load_experiment
from study.results.unpack import unpack_reference
from tests.kit.project import ROOT

PART = ROOT / "results" / "reference" / "smollm2-full"
FILE = PART / "experiment.yaml"
RAW = read_resolved(FILE)
OF_CELLS = len(load_experiment(FILE, str(FILE)).cells())
M = "smollm2-135m"
CELLS = (
    "base/0/seed0", "lora/0/seed0", "lora/0/seed1", "llm-pruner-ftp/0.25/seed0", "pat/0.25/seed0", "pat/0.5/seed0", "pat-g/0.25/seed0",
    "shortgpt-refitted/0.5/seed0", "shortgpt-refitted/0.5/seed2", "slicegpt-ftp/0.25/seed0",
)  # fmt: skip
"""Of each order of steps: tuned, pruned before that and after it; at rates that were searched. The reference may have more."""


def write_part(results: Path) -> Path:
    """Write the cells' records into a folder as an experiment's results and return it; those of the reference's other cells stay, but for
    the results of these.
    """
    unpack_reference(PART, results)
    keep_cells(results, *CELLS)
    return results


def keep_cells(results: Path, *cells: str) -> None:
    """Remove the results of all but some cells."""
    for path in results.glob("evaluation/*/*/*/*/cell.json"):
        if path.parent.relative_to(results / "evaluation" / M).as_posix() not in cells:
            path.unlink()
