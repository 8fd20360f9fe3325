"""Checks of an experiment's `benchmark` block that reach across its fields: names of shapes, and widths that a shape cannot have."""

from __future__ import annotations

from collections.abc import Iterator

from pat.benchmark.settings import KNOWN_SHAPES
from pat.benchmark.widths import narrowed_at, widths_of
from pat.errors import UserError
from pat.settings.fields import BYTES
from pat.settings.mistakes import nearest, shown
from study.experiment.schema import Experiment


def benchmark_problems(experiment: Experiment) -> Iterator[str]:
    """Check that the block measures something, and shapes that are known and can be cut."""
    block = experiment.benchmark
    if block is None:
        return
    if block.inference is None and block.tuning is None:
        yield "benchmark: measures nothing: give inference, tuning or both"
    for name, sizes in block.shapes.items():
        if sizes is None and name not in KNOWN_SHAPES:
            yield f"benchmark.shapes.{name}: {shown(name)} is not a known shape{nearest(name, KNOWN_SHAPES)}; give its sizes"
            continue
        shape = block.shape(name)
        try:
            if block.inference is not None:
                widths_of(shape, block.inference, "benchmark.inference.")
        except UserError as error:
            yield f"{error} (shape {name})"
        try:
            if (tuning := block.tuning) is not None:
                settings, bytes_each = tuning.pat, BYTES[tuning.precision]
                narrowed_at(shape, tuning.ratio, settings.align, bytes_each, settings.hio_rank, "pat.", "benchmark.tuning.")
        except UserError as error:
            yield f"{error} (shape {name})"
