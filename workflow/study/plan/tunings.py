"""Tunings, their searches and the prunings beside them: what each starts from, its arguments, and what it keeps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pat.io.artefacts import MANIFEST
from pat.settings.config import MEASURED_MASKS
from study.experiment.schema import Experiment
from study.plan.bases import PreparedBases
from study.plan.data import PreparedData
from study.plan.paths import BEFORE, Paths, Wildcards, of_arm, of_cell
from study.plan.values import as_json, repeated


class Tunings:
    """The files and arguments of the jobs between a base and a cell's adapter or pruned model."""

    def __init__(self, experiment: Experiment, paths: Paths, data: PreparedData, bases: PreparedBases) -> None:
        self.experiment, self.paths, self.data, self.bases = experiment, paths, data, bases

    def base(self, wildcards: Wildcards) -> str:
        """Return the manifest of what a row tunes: the base as its mask wants it, or what its pruner has left where a tuning follows it."""
        order = self.experiment.method(wildcards.row).order
        if order == "prune-tune" or (order == "tune-prune-tune" and wildcards.ratio != BEFORE):
            return f"{self.paths.cell}/pruned/{MANIFEST}"
        return self.bases.of(wildcards.model, wildcards.row)

    def pruned_from(self, wildcards: Wildcards) -> str:
        """Return the manifest of what a pruner that a tuning follows is given: the base, or what the row's first part has made of it."""
        two = self.experiment.method(wildcards.row).in_two_parts
        return of_cell(f"{self.paths.before}/merged/{MANIFEST}" if two else self.bases.base, wildcards)

    def mask_data(self, wildcards: Wildcards) -> list[str]:
        """Return the instruction set where a mask is measured on it, as it is when tuning."""
        return [self.data.instruct_file()] if wildcards.mask in MEASURED_MASKS else []

    def mask_data_option(self, wildcards: Wildcards, input: Any) -> str:
        """Return the option that names it; derived as the teacher's."""
        return repeated("--data", input.data)

    def teacher(self, wildcards: Wildcards) -> list[str]:
        """Return the manifest of the tuned, unpruned model that a row distils from; none where it learns from the data alone."""
        distils = self.experiment.distils(wildcards.row)
        return [of_cell(f"{self.paths.tuned_cell}/merged/{MANIFEST}", wildcards)] if distils else []

    def teacher_option(self, wildcards: Wildcards, input: Any) -> str:
        """Return the option that names a tuning's teacher. Derived from its input, so Snakemake keeps no record of its absence."""
        return repeated("--teacher", (str(Path(manifest).parent) for manifest in input.teacher))

    def rate(self, wildcards: Wildcards) -> list[str]:
        """Return the record of the search for a row's learning rate, which all its seeds share; none where the file gives the rate.

        A tuning in two parts is searched once, unpruned and whole, and every ratio takes that rate in both.
        """
        searched = self.experiment.search_of(wildcards.model, wildcards.row)
        arm = self.paths.arm_before if self.experiment.method(wildcards.row).in_two_parts else self.paths.arm
        return [of_arm(f"{arm}/rate.json", wildcards)] if searched else []

    def rate_option(self, wildcards: Wildcards, input: Any) -> str:
        """Return the option that names it; derived as the teacher's."""
        return repeated("--rate-from", input.rate)

    def first_seed(self, wildcards: Wildcards) -> int:
        """Return the seed that a row's learning rate is searched with."""
        return self.experiment.seeds_of(wildcards.row)[0]

    def on_first_seed(self, ask: Callable[[Wildcards], str | list[str]]) -> Callable[[Wildcards], str | list[str]]:
        """Return a function of a cell's wildcards as one of an arm's, which have no seed."""

        def asked(wildcards: Wildcards) -> str | list[str]:
            seed = str(self.first_seed(wildcards))
            cell: Any = SimpleNamespace(model=wildcards.model, row=wildcards.row, ratio=wildcards.ratio, seed=seed)
            found = ask(cell)
            return of_cell(found, cell) if isinstance(found, str) else found

        return asked

    def search_folder(self, wildcards: Wildcards) -> str:
        """Return where a search keeps its candidates while it runs; not an output, for the same reason as a tuning's."""
        return of_arm(f"{self.paths.arm}/search", wildcards)

    def run_folder(self, wildcards: Wildcards) -> str:
        """Return where a tuning keeps its checkpoints while it runs; not an output, for the same reason."""
        return of_cell(f"{self.paths.cell}/run", wildcards)

    def tuner(self, wildcards: Wildcards) -> str | None:
        """Return what a row tunes with; None where it does not tune."""
        return self.experiment.method(wildcards.row).tuner

    def ratio(self, wildcards: Wildcards) -> str:
        """Return the ratio that is pruned while tuning: none where a pruner has done it before."""
        return self.asked_ratio(wildcards) if self.experiment.method(wildcards.row).order == "tune" else "0"

    def asked_ratio(self, wildcards: Wildcards) -> str:
        """Return the ratio that a row's tuner or pruner is asked for: that of the cell, or what the cell's budget comes to."""
        return f"{self.experiment.ratio_for(wildcards.model, wildcards.row, float(wildcards.ratio)):g}"

    def settings(self, wildcards: Wildcards) -> str:
        """Return a tuning's settings: the whole recipe, or a part of its steps where the pruning lies between."""
        if not self.experiment.method(wildcards.row).in_two_parts:
            return self.whole_settings(wildcards)
        before, after = self.experiment.parts_of(wildcards.model, wildcards.row)
        return as_json(before if wildcards.ratio == BEFORE else after)

    def whole_settings(self, wildcards: Wildcards) -> str:
        """Return the settings of all of a row's steps, which a search of its rate tries."""
        return as_json(self.experiment.tune_job(wildcards.model, wildcards.row))

    def pruner(self, wildcards: Wildcards) -> str | None:
        """Return what a row prunes with."""
        return self.experiment.method(wildcards.row).pruner

    def prune_settings(self, wildcards: Wildcards) -> str:
        """Return how a row's pruner comes to its sizes."""
        return as_json(self.experiment.prune_settings(wildcards.model, wildcards.row))

    def align(self, wildcards: Wildcards) -> int | str:
        """Return what a pruned width is rounded to."""
        return self.experiment.tune_job(wildcards.model, wildcards.row).pat.align

    def device(self, wildcards: Wildcards) -> str:
        """Return where a row's tensors are worked on; a pruner measures there too."""
        return self.experiment.tune_job(wildcards.model, wildcards.row).tuning.device

    def threads(self, wildcards: Wildcards) -> int:
        """Return the threads of a process of a tuning, and of the pruning before or after it."""
        return self.experiment.tune_job(wildcards.model, wildcards.row).tuning.threads
