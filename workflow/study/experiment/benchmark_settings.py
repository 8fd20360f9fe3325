"""What an experiment measures for time and memory: shapes of models, each by the library's benchmarks."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pat.benchmark.settings import KNOWN_SHAPES, InferenceBenchmark, ModelShape, TuningBenchmark
from pat.settings.fields import Settings


class BenchmarkSettings(Settings):
    """What an experiment measures: shapes by name (nothing behind a known shape's name), and how."""

    shapes: Annotated[dict[str, ModelShape | None], Field(min_length=1)] = Field(
        description="name → sizes of a model; nothing behind a known shape's name"
    )
    inference: InferenceBenchmark | None = Field(default=None, description="measure time to first token and decoding")
    tuning: TuningBenchmark | None = Field(default=None, description="measure steps and memory of tuning")

    def shape(self, name: str) -> ModelShape:
        """Return a shape's sizes; a name alone stands for the known shape."""
        return self.shapes[name] or KNOWN_SHAPES[name]
