"""What is measured of shapes: time and memory of inference and of tuning."""

from __future__ import annotations

from study.experiment.schema import Experiment
from study.plan.paths import Paths, Wildcards
from study.plan.values import as_json


class Benchmarks:
    """The files and arguments of an experiment's benchmarks."""

    def __init__(self, experiment: Experiment, paths: Paths) -> None:
        self.experiment, self.paths = experiment, paths

    @property
    def shapes(self) -> list[str]:
        """The shapes that are measured."""
        return list(self.experiment.benchmark.shapes) if self.experiment.benchmark else []

    def files(self, *kinds: str) -> list[str]:
        """Return the records of the benchmarks of these kinds, inference and tuning; of all where none is named."""
        measured = [kind for kind in kinds or ("inference", "tuning") if getattr(self.experiment.benchmark, kind, None) is not None]
        return [f"{self.paths.results}/benchmark/{kind}/{shape}.json" for kind in measured for shape in self.shapes]

    def shape(self, wildcards: Wildcards) -> str:
        """Return the sizes of a shape."""
        assert self.experiment.benchmark is not None
        return as_json(self.experiment.benchmark.shape(wildcards.shape))

    def settings(self, kind: str) -> str:
        """Return how all shapes are measured."""
        return as_json(getattr(self.experiment.benchmark, kind, None))

    def threads(self, kind: str) -> int:
        """Return the threads of a benchmark."""
        settings = getattr(self.experiment.benchmark, kind, None)
        return settings.threads if settings else 1
