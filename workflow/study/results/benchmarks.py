"""Reads the JSONs of `pat benchmark inference` (schema 1) as the figures see them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

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


class Inference(Part):
    """One run; `name` is the known shape's, else the file's, which the workflow gives the shape's."""

    name: str
    kind: Literal["inference"]
    weights: str
    dtype: str
    attention: str
    context: int
    compiled: bool
    models: list[Model]
    measurements: list[Measurement]
    speedups: list[Speedup]
    machine: dict[str, object]


def read_inference(path: Path) -> Inference:
    """Return the record of a file. Raises UserError where it is missing or is not one of these."""
    content = read_json(path)
    if not isinstance(content, dict) or content.get("schema") != 1:
        raise UserError(f"{path}: is not a benchmark's record of schema 1; run the benchmark again")
    try:
        return Inference.model_validate({**content, "name": shape_name(content.get("shape"), path.stem)})
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, it['loc']))}: {it['msg']}" for it in error.errors())
        raise UserError(f"{path}: is not a record of `pat benchmark inference`: {problems}") from None
