"""What a job may use, as Snakemake's resource functions: what its phase demands, and more at every further attempt.

Threads are part of the settings, because numbers depend on them, and are only reserved here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from study.plan.demands import Demands
from study.plan.paths import Wildcards


class Allowances:
    """The resources of an experiment's jobs."""

    def __init__(self, demands: Demands) -> None:
        self.demands = demands

    def gpu(self, phase: str) -> Callable[[Any], int]:
        """Return the resource function for a phase's GPUs."""

        def gpu(wildcards: Any) -> int:
            return self.demands.of(phase, wildcards).gpu

        return gpu

    def one_gpu(self, wildcards: Wildcards) -> int:
        """Return the GPU of a job that tunes in one process, as a search does."""
        return min(1, self.gpu("tune")(wildcards))

    def memory(self, phase: str) -> Callable[[Any, int], int]:
        """Return the resource function for a phase's memory in MB; each further attempt gets half as much again."""

        def mem_mb(wildcards: Any, attempt: int) -> int:
            return self.demands.of(phase, wildcards).mem_mb * (attempt + 1) // 2

        return mem_mb

    def time(self, phase: str) -> Callable[[Any, int], int]:
        """Return the resource function for a phase's time in minutes; each further attempt gets half as much again."""

        def runtime(wildcards: Any, attempt: int) -> int:
            return self.demands.of(phase, wildcards).runtime * (attempt + 1) // 2

        return runtime

    def search_time(self, wildcards: Wildcards, attempt: int) -> int:
        """Return the minutes of a search: a tuning's for each candidate, in one process however many the tuning has."""
        search = self.demands.experiment.search_of(wildcards.model, wildcards.row)
        processes = max(1, self.gpu("tune")(wildcards))
        return self.time("tune")(wildcards, attempt) * (len(search.learning_rates) if search else 1) * processes

    def cores(self, wildcards: Wildcards) -> int:
        """Return the cores of a tuning with all its processes."""
        return self.demands.experiment.tune_job(wildcards.model, wildcards.row).tuning.threads * max(1, self.gpu("tune")(wildcards))

    def launcher(self, wildcards: Wildcards, resources: Any) -> str:
        """Return what starts a tuning's processes, one for each GPU of its allocation; nothing where there is one GPU or none.

        Derived from its resources, so Snakemake keeps no record of it.
        """
        return f"python -m pat.machine.several {resources.gpu}" if resources.gpu > 1 else ""
