"""Checks of an experiment's `benchmark` block that reach across its fields: names of shapes, and widths that a shape cannot have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from pat.benchmark.settings import KNOWN_SHAPES, InferenceBenchmark, ModelShape, TuningBenchmark, widths_of
from pat.errors import SettingError, UserError
from pat.mistakes import nearest, shown
from pat.width import target_width


def benchmark_problems(block: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the raw block, one line a problem; what the schema refuses already is stepped over."""
    if "inference" not in block and "tuning" not in block:
        yield "benchmark: measures nothing: give inference, tuning or both"
    shapes = block.get("shapes")
    for name, written in shapes.items() if isinstance(shapes, Mapping) else ():
        if written is None and name not in KNOWN_SHAPES:
            yield f"benchmark.shapes.{name}: {shown(name)} is not a known shape{nearest(str(name), KNOWN_SHAPES)}; give its sizes"
            continue
        try:
            shape = KNOWN_SHAPES[name] if written is None else ModelShape.model_validate(written)
        except ValidationError:
            continue
        yield from _width_problems(str(name), shape, block)


def _width_problems(name: str, shape: ModelShape, block: Mapping[str, Any]) -> Iterator[str]:
    try:
        if block.get("inference") is not None:
            widths_of(shape, InferenceBenchmark.model_validate(block["inference"]))
    except ValidationError:
        pass
    except UserError as error:
        yield f"benchmark.inference.{str(error).removeprefix('settings: ')} (shape {name})"
    try:
        if block.get("tuning") is not None:
            settings = TuningBenchmark.model_validate(block["tuning"])
            target_width(shape.hidden_size, shape.heads, settings.ratio, settings.pat.align)
    except ValidationError:
        pass
    except SettingError as error:
        yield f"benchmark.tuning.ratio: {error} (shape {name})"
