"""Records of `pat benchmark export` as tables and figures see them (schema 1)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from pat.benchmark.equal_bytes import at_equal_bytes
from pat.errors import UserError
from pat.io.artefacts import read_json
from study.results.benchmarks import Machine, Part, Provenance


class Export(Part):
    """One model in one format; without bytes where the format was refused, and why, without a perplexity too large for a number."""

    model: str
    format: str
    hidden_size: int
    bytes: int = 0
    left_in_f16: int = 0
    perplexity: dict[str, float | None] = {}
    refused: str = ""


class Exports(Part):
    """A record."""

    kind: Literal["export"]
    measurements: list[Export]
    origins: dict[str, dict[str, Any]] = {}
    """What the models were read from, by their names; of those alone that were read from GGUF files."""
    machine: Machine
    provenance: Provenance

    @property
    def measured(self) -> list[Export]:
        """What was not refused."""
        return [it for it in self.measurements if it.bytes]

    @property
    def only_quantised(self) -> dict[tuple[str, str, str], float | None]:
        """What the first model has in as many bytes as a later one, by that model, its format, and the text."""
        points = [it.model_dump() for it in self.measured]
        return {(it["model"], it["format"], it["text"]): it["only_quantised"] for it in at_equal_bytes(points)}


def read_exports(path: Path) -> Exports:
    """Return the record of a file. Raises UserError where it is missing or is not one of these."""
    try:
        return Exports.model_validate(read_json(path))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, it['loc']))}: {it['msg']}" for it in error.errors())
        raise UserError(f"{path}: is not a record of `pat benchmark export`: {problems}") from None
