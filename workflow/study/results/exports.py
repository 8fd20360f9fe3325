"""Records of `pat benchmark export` as tables and figures see them (schema 1)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from pat.errors import UserError
from pat.io.artefacts import read_json
from study.results.benchmarks import Machine, Part, Provenance


class Export(Part):
    """One model in one format; without bytes where the format was refused, without a perplexity where it was too large for a number."""

    model: str
    format: str
    hidden_size: int
    bytes: int = 0
    left_in_f16: int = 0
    perplexity: dict[str, float | None] = {}


class BesideQuantised(Part):
    """One smaller model in one format on one text, beside what the first model has at as many bytes; None beyond its formats."""

    model: str
    format: str
    text: str
    only_quantised: float | None


class Exports(Part):
    """A record."""

    kind: Literal["export"]
    measurements: list[Export]
    at_equal_bytes: list[BesideQuantised]
    machine: Machine
    provenance: Provenance

    @property
    def measured(self) -> list[Export]:
        """What was not refused."""
        return [it for it in self.measurements if it.bytes]


def read_exports(path: Path) -> Exports:
    """Return the record of a file. Raises UserError where it is missing or is not one of these."""
    try:
        return Exports.model_validate(read_json(path))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, it['loc']))}: {it['msg']}" for it in error.errors())
        raise UserError(f"{path}: is not a record of `pat benchmark export`: {problems}") from None
