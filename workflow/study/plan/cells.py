"""The cells of an experiment: which there are, the checkpoint that each is scored by, and what is recorded of how it came to be."""

from __future__ import annotations

from pat.io.artefacts import MANIFEST
from study.experiment.schema import Cell, Experiment
from study.plan.bases import PreparedBases
from study.plan.paths import BEFORE, Paths, Wildcards, of_cell
from study.plan.values import as_json, repeated


class Cells:
    """The files and arguments of the jobs that a cell has from its finished checkpoint on."""

    def __init__(self, experiment: Experiment, paths: Paths, bases: PreparedBases) -> None:
        self.experiment, self.paths, self.bases = experiment, paths, bases

    def merged_models(self) -> list[str]:
        """Return the manifest of the finished checkpoint of every cell that is asked for."""
        return [self._finished(cell.method.name).format(model=cell.model, row=cell.row, ratio=f"{cell.ratio:g}", seed=cell.seed)
                for cell in self.experiment.chosen_cells()]  # fmt: skip

    def _finished(self, method: str) -> str:
        """Return where the manifest of a method's finished checkpoints lies: merged, or the base itself where nothing is done to it."""
        return self.bases.base if method == "base" else f"{self.paths.cell}/merged/{MANIFEST}"

    def finished(self, wildcards: Wildcards) -> str:
        """Return the manifest of the checkpoint that a cell is scored by."""
        return of_cell(self._finished(self.experiment.method(wildcards.row).name), wildcards)

    def rows_of(self, *orders: str) -> list[str]:
        """Return the rows whose method takes its steps in one of these orders."""
        return [row for row in self.experiment.methods if self.experiment.method(row).order in orders]

    def tuned_rows(self) -> list[str]:
        """Return the rows that have a tuning of their own."""
        return [row for row in self.experiment.methods if self.experiment.method(row).tunes]

    def levels(self, *, tuned: bool = False) -> list[str]:
        """Return what may stand at a ratio's place in paths; with `tuned` also what stands there before a pruning between two tunings."""
        shared = [BEFORE] if tuned and self.rows_of("tune-prune-tune") else []
        return sorted({f"{cell.ratio:g}" for cell in self.experiment.cells()}) + shared

    def given_rows(self, *, made_elsewhere: bool = False) -> list[str]:
        """Return the rows of models to which nothing is done; with `made_elsewhere` the checkpoints among them alone."""
        return [row for row in self.rows_of("given") if not made_elsewhere or self.experiment.row(row).checkpoint is not None]

    def results(self) -> list[str]:
        """Return the file of every cell that holds all its numbers."""
        return [self._result(cell) for cell in self.experiment.cells()]

    def chosen_results(self) -> list[str]:
        """Return the same of the cells that are asked for."""
        return [self._result(cell) for cell in self.experiment.chosen_cells()]

    def _result(self, cell: Cell) -> str:
        return f"{self.paths.results}/evaluation/{cell.path}/cell.json"

    def evaluation_settings(self, wildcards: Wildcards) -> str:
        """Return how a model is scored."""
        return as_json(self.experiment.evaluation_of(wildcards.model))

    def evaluation_threads(self, wildcards: Wildcards) -> int:
        """Return the threads of an evaluation."""
        return self.experiment.evaluation_of(wildcards.model).threads

    def tuning_record(self, wildcards: Wildcards) -> str:
        """Return the record of the tuning that a cell's model comes from; empty where nothing was tuned."""
        if self.experiment.method(wildcards.row).order == "given":
            return ""
        after_tuning = self.experiment.method(wildcards.row).order == "tune-prune"
        return of_cell(f"{self.paths.tuned_cell if after_tuning else self.paths.cell}/adapter/tuning.json", wildcards)

    def _first_tuning(self, wildcards: Wildcards) -> list[str]:
        """Return the record of the first part of a tuning in two; none where a tuning is one."""
        two = self.experiment.method(wildcards.row).in_two_parts
        return [of_cell(f"{self.paths.before}/adapter/tuning.json", wildcards)] if two else []

    def earlier_tuning(self, wildcards: Wildcards) -> str:
        """Return the same as an option."""
        return repeated("--before", self._first_tuning(wildcards))

    def _steps(self, wildcards: Wildcards) -> list[str]:
        """Return the records of the steps that made a cell's model, in their order."""
        steps = {
            "tune": [*self.bases.records(wildcards.model, wildcards.row), f"{self.paths.cell}/merged/merge.json"],
            "prune-tune": [f"{self.paths.cell}/pruned/prune.json", f"{self.paths.cell}/merged/merge.json"],
            "tune-prune": [f"{self.paths.tuned_cell}/merged/merge.json", f"{self.paths.cell}/merged/prune.json"],
            "tune-prune-tune": [
                f"{self.paths.before}/merged/merge.json",
                f"{self.paths.cell}/pruned/prune.json",
                f"{self.paths.cell}/merged/merge.json",
            ],
            "given": [f"{self.paths.scores}/sizes.json"],
        }
        return [of_cell(path, wildcards) for path in steps[self.experiment.method(wildcards.row).order]]

    def step_records(self, wildcards: Wildcards) -> str:
        """Return the same as options."""
        return repeated("--step", self._steps(wildcards))

    def records(self, wildcards: Wildcards) -> list[str]:
        """Return all records that a cell is collected from but those of its evaluation."""
        tuned = self.tuning_record(wildcards)
        return [*self._first_tuning(wildcards), *([tuned] if tuned else []), *self._steps(wildcards)]

    def _budget(self, wildcards: Wildcards) -> dict[str, object]:
        """Return the budget that a cell's ratio stands for, and the ratio that its commands were asked for; nothing of a plain ratio."""
        level = float(wildcards.ratio)
        budget = self.experiment.budget_at(wildcards.model, wildcards.row, level)
        if budget is None:
            return {}
        asked = self.experiment.ratio_for(wildcards.model, wildcards.row, level)
        return {"budget": budget.model_dump(mode="json") | {"ratio_asked": asked}}

    def sizes(self, wildcards: Wildcards) -> list[str]:
        """Return the record of the sizes of a model to which nothing is done; of others their steps' own records tell them."""
        given = self.experiment.method(wildcards.row).order == "given"
        return [of_cell(f"{self.paths.scores}/sizes.json", wildcards)] if given else []

    def identity(self, wildcards: Wildcards) -> str:
        """Return what a cell is."""
        method = self.experiment.method(wildcards.row)
        return as_json(
            {
                "experiment": self.experiment.name,
                "model": wildcards.model,
                "method": wildcards.row,
                "base_method": method.name,
                "label": self.experiment.label(wildcards.row),
                "mode": method.mode,
                "ratio_requested": float(wildcards.ratio),
                "seed": int(wildcards.seed),
                **self._budget(wildcards),
                "factors": self.experiment.row(wildcards.row).factors,
            }
        )
