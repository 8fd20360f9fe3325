"""The instruction set in tokens: made once for a model and a length of rows, read by every tuning and search that wants it so.

A tuning or a search that was finished when there was no such step was made from the rows themselves, which comes to the same bytes. Its
input is what it was: with another one Snakemake would make it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pat.errors import UserError
from pat.io.artefacts import MANIFEST, read_record
from study.experiment.schema import Experiment
from study.plan.paths import Paths, Wildcards, of_arm, of_cell
from study.plan.values import repeated


class Encodings:
    """The encoded instruction sets of an experiment. Runs nothing."""

    THREADS = 4
    """Tokens do not depend on them."""

    def __init__(self, experiment: Experiment, paths: Paths) -> None:
        self.experiment, self.paths = experiment, paths
        self.folder = f"{paths.results}/encoded/{{model}}/{{max_length}}"

    def for_tuning(self, wildcards: Wildcards) -> list[str]:
        """Return the manifest of what a tuning reads; none where it was made without."""
        made = of_cell(f"{self.paths.cell}/adapter/tuning.json", wildcards)
        return [] if _made_without(Path(made)) else [self._of(wildcards)]

    def for_search(self, wildcards: Wildcards) -> list[str]:
        """Return the manifest of what a search reads; none where it was made without.

        While it is made again its record is gone, and the tuning that it was for says it.
        """
        seed = self.experiment.seeds_of(wildcards.row)[0]
        tuned = of_arm(f"{self.paths.arm}/seed{seed}/adapter/tuning.json", wildcards)
        record = Path(of_arm(f"{self.paths.arm}/rate.json", wildcards))
        return [] if _made_without(record if record.exists() else Path(tuned)) else [self._of(wildcards)]

    def option(self, wildcards: Wildcards, input: Any) -> str:
        """Return the option that names it. Derived from its input, so Snakemake keeps no record of its absence."""
        return repeated("--encoded", (str(Path(manifest).parent) for manifest in input.encoded))

    def lengths(self) -> list[str]:
        """Return the lengths of rows that there are."""
        tuned = [row for row in self.experiment.methods if self.experiment.method(row).tunes]
        return sorted({str(self._length(model, row)) for model in self.experiment.models for row in tuned})

    def _of(self, wildcards: Wildcards) -> str:
        folder = self.folder.format(model=wildcards.model, max_length=self._length(wildcards.model, wildcards.row))
        return f"{folder}/{MANIFEST}"

    def _length(self, model: str, row: str) -> int:
        return self.experiment.tune_job(model, row).tuning.max_length


def _made_without(record: Path) -> bool:
    """Return whether a step is finished, by its record, and was not given an encoding."""
    try:
        provenance = read_record(record).get("provenance") if record.is_file() else None
    except UserError:  # it is made again
        return False
    return isinstance(provenance, Mapping) and "encoded" not in (provenance.get("inputs") or {})
