"""The phases of an experiment as version control sees them: what each runs, and which folders and files it makes.

`dvc.yaml` says the same; a test holds the two and the DAG together. Whatever the grid, a phase's results lie in the same places.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Phase:
    """One phase: the targets that Snakemake is given, and the folders and single files below `results/<experiment>/` that are its own."""

    targets: tuple[str, ...]
    folders: tuple[str, ...]
    files: tuple[str, ...] = ()


PHASES = {
    "data": Phase(("data",), ("data",)),
    "checkpoints": Phase(("checkpoints",), ("models", "rotated", "refitted", "encoded", "checkpoints")),
    "evaluation": Phase(("evaluation",), ("evaluation",)),
    "tables": Phase(
        ("tables", "benchmarks", "figures"),
        ("tables", "benchmark", "figures"),
        ("metrics.json", "plots/accuracy.csv", "plots/perplexity.csv"),
    ),
}
"""In the order in which they run."""
