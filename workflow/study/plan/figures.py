"""The figures of an experiment: which are drawn, and from what."""

from __future__ import annotations

import shlex
from typing import Any

from study.experiment.figures import FIGURES
from study.experiment.schema import Experiment
from study.experiment.table_settings import ZERO_SHOT
from study.plan.benchmarks import Benchmarks
from study.plan.cells import Cells
from study.plan.data import PreparedData
from study.plan.paths import Paths, Wildcards
from study.plan.values import repeated


class Figures:
    """The files and arguments of the jobs that draw."""

    def __init__(self, experiment: Experiment, paths: Paths, data: PreparedData, benchmarks: Benchmarks, cells: Cells) -> None:
        self.experiment, self.paths, self.data, self.benchmarks, self.cells = experiment, paths, data, benchmarks, cells

    def files(self) -> list[str]:
        """Return the files of the figures that the experiment draws."""
        masked = [cell for cell in self.experiment.cells() if cell.method.masked]
        of_each = {"health": [f"health/{cell.path}/health" for cell in masked]}
        drawn = self.experiment.drawn()
        return [f"{self.paths.results}/figures/{figure}.png" for name in drawn for figure in of_each.get(name, [name])]

    def names(self) -> list[str]:
        """Return the figures that an experiment has one of; of its health every cell has one."""
        return [name for name in FIGURES if name != "health"]

    def inputs(self, wildcards: Wildcards) -> dict[str, list[str]]:
        """Return the files that a figure is a function of."""
        reads = FIGURES[wildcards.figure].reads
        return {
            "cells": self.cells.results() if "cells" in reads else [],
            "benchmarks": self.benchmarks.files("inference") if "benchmark" in reads else [],
        }

    def options(self, wildcards: Wildcards, input: Any) -> str:
        """Return the options that name them to a figure; derived from its inputs, so Snakemake keeps no record of it."""
        return " ".join([repeated("--benchmark", input.benchmarks), *map(shlex.quote, input.cells)]).strip()

    def named(self, wildcards: Wildcards) -> str:
        """Return the figure's name, and the paper's table of accuracies where the figure shows it and it is not the one by default."""
        beside, shown = self.experiment.tables.accuracy, "accuracy" in FIGURES[wildcards.figure].reads
        return f"{wildcards.figure} --accuracy {beside}" if shown and beside != ZERO_SHOT else wildcards.figure

    def health_options(self, wildcards: Wildcards) -> str:
        """Return the options that name the run to the figure of its health, and what to call it."""
        title = f"{wildcards.model}, {wildcards.row}, ratio {wildcards.ratio}, seed {wildcards.seed}"
        return " ".join([repeated("--tuning", [self.cells.tuning_record(wildcards)]), repeated("--title", [title])])
