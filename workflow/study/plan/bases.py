"""What becomes of a base before PAT tunes it: put into another basis, its readers refitted. Paths and arguments of jobs.

Rows that want the same of a model share it, a seed at a time. Runs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from pat.io.artefacts import MANIFEST
from pat.settings.jobs import TuningSettings
from study.experiment.schema import Experiment
from study.plan.values import repeated

UNTIED = "-untied"


class Turned(Protocol):
    """The wildcards of a model in another basis."""

    model: str
    basis: str


class Refitted(Turned, Protocol):
    """The wildcards of a model with refitted readers."""

    mask: str
    align: str
    ratio: str


class PreparedBases:
    """The bases that an experiment's rows tune, where they do not prune first."""

    def __init__(self, experiment: Experiment, results: str) -> None:
        self.experiment = experiment
        self.base = f"{results}/models/{{model}}/{MANIFEST}"
        self.rotated = f"{results}/rotated/{{model}}/{{basis}}/seed{{seed}}"
        self.refitted = f"{results}/refitted/{{model}}/{{basis}}/{{mask}}/align-{{align}}/{{ratio}}/seed{{seed}}"

    def of(self, model: str, row: str) -> str:
        """Return the manifest of the base that a row tunes."""
        refitted = self._refitted_for(model, row)
        return f"{refitted}/{MANIFEST}" if refitted else self._in_basis(self._named(model, row))

    def records(self, model: str, row: str) -> list[str]:
        """Return the records of the steps that made it, in their order."""
        rotated, refitted = self._rotated_to(self._named(model, row)), self._refitted_for(model, row)
        return [f"{folder}/{record}" for folder, record in ((rotated, "rotation.json"), (refitted, "readers.json")) if folder]

    def _named(self, model: str, row: str) -> str:
        """Return what a row's basis is called in paths: its name, and whether an embedding that is the head was taken apart for it."""
        basis = self.experiment.basis_of(model, row)
        broken = basis != "native" and self.experiment.tune_job(model, row).pat.tie == "break"
        return f"{basis}{UNTIED}" if broken else basis

    def basis(self, wildcards: Turned) -> str:
        """Return the basis that a model is put into."""
        return wildcards.basis.removesuffix(UNTIED)

    def tie(self, wildcards: Turned) -> str:
        """Return the option that takes embedding and head apart; none where they stay as they are."""
        return "--tie break" if wildcards.basis.endswith(UNTIED) else ""

    def _rotated_to(self, basis: str) -> str | None:
        """Return the folder of a model in a basis; None for the native one."""
        return None if basis == "native" else self.rotated.replace("{basis}", basis)

    def _in_basis(self, basis: str) -> str:
        """Return the manifest of a model in a basis."""
        rotated = self._rotated_to(basis)
        return f"{rotated}/{MANIFEST}" if rotated else self.base

    def _refitted_for(self, model: str, row: str) -> str | None:
        """Return the folder of the base whose readers are refitted to a row's mask; None where they stay plain."""
        pat = self.experiment.tune_job(model, row).pat
        plain = self.experiment.readers_of(model, row) == "plain"
        return None if plain else self._refitted_to(self._named(model, row), pat.mask, str(pat.align))

    def _refitted_to(self, basis: str, mask: str, align: str) -> str:
        return self.refitted.replace("{basis}", basis).replace("{mask}", mask).replace("{align}", align)

    def refitting_base(self, wildcards: Refitted) -> str:
        """Return the manifest of the base whose readers are refitted."""
        return self._in_basis(wildcards.basis)

    # the first row that wants a base says where it is made, as its settings say where it is tuned

    def rotating_threads(self, wildcards: Turned) -> int:
        """Return the threads that a basis is measured with."""
        return self._rotating(wildcards).threads

    def rotating_device(self, wildcards: Turned) -> str:
        """Return where a basis is measured."""
        return self._rotating(wildcards).device

    def refitting_threads(self, wildcards: Refitted) -> int:
        """Return the threads that readers are refitted with."""
        return self._refitting(wildcards).threads

    def refitting_device(self, wildcards: Refitted) -> str:
        """Return where readers are refitted."""
        return self._refitting(wildcards).device

    def ridges_option(self, wildcards: Refitted, input: object) -> str:
        """Return the options that name the ridges to try; none where the verb's own are.

        Said to be derived from the input, so that Snakemake keeps no record of their absence: refits of before there were such options
        would be made again, and all behind them. `named_ridges` has it make a refit again whose ridges are others.
        """
        return repeated("--ridge", map(repr, self.experiment.refit.ridges or ()))

    def named_ridges(self) -> dict[str, tuple[float, ...]]:
        """Return what Snakemake keeps of the ridges: those that are named, and nothing where none are."""
        ridges = self.experiment.refit.ridges
        return {} if ridges is None else {"named": ridges}

    def refitting_ratio(self, wildcards: Refitted) -> str:
        """Return the ratio that readers are refitted to: the same for all rows that share the base, whose widths are the same."""
        rows = self._refitted_by(wildcards)
        level = float(wildcards.ratio)
        row = next(row for row in rows if f"{level:g}" in {f"{each:g}" for each in self.experiment.ratios_of(wildcards.model, row)})
        return f"{self.experiment.ratio_for(wildcards.model, row, level):g}"

    def _rotating(self, wildcards: Turned) -> TuningSettings:
        rows = (row for row in self.experiment.methods if self._named(wildcards.model, row) == wildcards.basis)
        return self._first(wildcards.model, rows)

    def _refitting(self, wildcards: Refitted) -> TuningSettings:
        return self._first(wildcards.model, self._refitted_by(wildcards))

    def _refitted_by(self, wildcards: Refitted) -> Iterator[str]:
        asked = self._refitted_to(wildcards.basis, wildcards.mask, wildcards.align)
        return (row for row in self.experiment.methods if self._refitted_for(wildcards.model, row) == asked)

    def _first(self, model: str, rows: Iterator[str]) -> TuningSettings:
        return self.experiment.tune_job(model, next(rows)).tuning
