"""Records of `pat benchmark` as tables and figures see them: what all say of themselves, and those of inference (schema 1)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, ValidationInfo

from pat.benchmark.settings import KNOWN_SHAPES
from pat.errors import UserError
from pat.io.artefacts import read_json


def shape_name(shape: object, otherwise: str) -> str:
    """Return the name of a known shape by its sizes, as a record holds them; `otherwise` where it is none."""
    return next((name for name, known in KNOWN_SHAPES.items() if known.model_dump() == shape), otherwise)


class Part(BaseModel):
    """A part of a record; fields that no table or figure reads are stepped over."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class Spread(Part):
    """A median and the smallest and largest of its samples."""

    median: float
    low: float
    high: float


def _name_of(shape: object, info: ValidationInfo) -> str:
    file: str = info.data["file"]
    return shape_name(shape, file.rpartition("-")[0])


class Machine(Part):
    """What it was measured on."""

    name: str
    cores: int


class Provenance(Part):
    """What it was measured with."""

    git_commit: str | None
    versions: dict[str, str]
    settings: dict[str, Any]


class Record(Part):
    """What every benchmark says of itself. `name` is the known shape's, else the file's, which the workflow gives the shape's.

    `file` is the file's name, which in a kept run begins with the shape's, or the model's where none is known; `shape` is that beginning.
    """

    kind: str
    name: str
    file: str
    shape: Annotated[str, BeforeValidator(_name_of)]
    weights: str
    machine: Machine
    provenance: Provenance


class Model(Part):
    """One measured model; no bytes where it did not fit."""

    name: str
    hidden_size: int
    parameters: int
    ratio_effective: float
    share_removed: float
    weight_bytes: int | None = None


class Speedup(Part):
    """How many times faster than the unpruned model, at one batch size; no `decode` where the first token alone was timed."""

    model: str
    batch_size: int
    first_token: Spread
    decode: Spread | None


class Measurement(Part):
    """Whether one model fitted at one batch size, beside `against`."""

    model: str
    against: str
    batch_size: int
    status: str


class Inference(Record):
    """A record of `pat benchmark inference`."""

    kind: Literal["inference"]
    dtype: str
    attention: str
    context: int
    compiled: bool
    models: list[Model]
    measurements: list[Measurement]
    speedups: list[Speedup]


def fields_of(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return what a record's file holds, with the names by which it is known."""
    return {**content, "file": path.stem, "name": shape_name(content.get("shape"), path.stem)}


def read_inference(path: Path) -> Inference:
    """Return the record of a file. Raises UserError where it is missing or is not one of these."""
    content = read_json(path)
    if not isinstance(content, dict) or content.get("schema") != 1:
        raise UserError(f"{path}: is not a benchmark's record of schema 1; run the benchmark again")
    try:
        return Inference.model_validate(fields_of(content, path))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, it['loc']))}: {it['msg']}" for it in error.errors())
        raise UserError(f"{path}: is not a record of `pat benchmark inference`: {problems}") from None
