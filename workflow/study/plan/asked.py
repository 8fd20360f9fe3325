"""What an experiment asks of a cell, as the records of its steps say what they were asked for: so that the two can be compared.

Knows nothing of what has run.
"""

from __future__ import annotations

import json
from pathlib import PurePath
from typing import Any

from study.experiment.schema import TUNED_ROW, Cell
from study.plan.jobs import Plan
from study.plan.paths import BEFORE, Wildcards, wildcards_of


class Asked:
    """One cell of an experiment: what it is, what its steps are asked for, and where their records lie below the results."""

    def __init__(self, plan: Plan, cell: Cell) -> None:
        self.plan, self.cell = plan, cell
        self._own = wildcards_of(cell)
        self._tuned = wildcards_of(cell, row=TUNED_ROW, ratio="0") if cell.method.order == "tune-prune" else self._own

    @property
    def identity(self) -> dict[str, Any]:
        """What the cell is, in the fields of its result."""
        found: dict[str, Any] = json.loads(self.plan.cells.identity(self._own))
        return found

    def settings(self) -> dict[str, dict[str, Any]]:
        """Return the settings of each step, by its name in the cell's provenance; a rate that is searched is None."""
        order = self.cell.method.order
        found = {"evaluate": json.loads(self.plan.cells.evaluation_settings(self._own))}
        if order != "given":
            found["tune"] = self._tuning(self._tuned)
        if order == "tune-prune-tune":
            found["before/tune"] = self._tuning(wildcards_of(self.cell, ratio=BEFORE))
        if self.cell.method.pruner is not None:
            found["prune"] = self._pruning(self._own)
        return found

    def _tuning(self, wildcards: Wildcards) -> dict[str, Any]:
        tunings = self.plan.tunings
        return {**json.loads(tunings.settings(wildcards)), "tuner": tunings.tuner(wildcards), "ratio": float(tunings.ratio(wildcards))}

    def _pruning(self, wildcards: Wildcards) -> dict[str, Any]:
        tunings = self.plan.tunings
        own = {"pruner": tunings.pruner(wildcards), "ratio": float(tunings.asked_ratio(wildcards)), "align": tunings.align(wildcards)}
        return {**json.loads(tunings.prune_settings(wildcards)), **own}

    def records(self) -> list[PurePath]:
        """Return where the records of the steps that made its checkpoint lie."""
        return self._below(self.plan.cells.records(self._own))

    def rates(self) -> list[PurePath]:
        """Return where the record of its learning rate's search lies, if it is searched."""
        return [] if self.cell.method.order == "given" else self._below(self.plan.tunings.rate(self._tuned))

    def _below(self, paths: list[str]) -> list[PurePath]:
        return [PurePath(path).relative_to(self.plan.paths.results) for path in paths]
