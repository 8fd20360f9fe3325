"""What an experiment's budgets come to, in sentences, before anything runs. That they can be met is checked with the file."""

from __future__ import annotations

from collections.abc import Iterator

from pat.benchmark.settings import ModelShape
from pat.benchmark.widths import solved
from pat.settings.budget import Budget
from pat.settings.fields import BYTES
from study.experiment.benchmark_settings import BenchmarkSettings
from study.experiment.schema import Experiment


def solved_budgets(experiment: Experiment) -> Iterator[str]:
    """Yield a sentence for each row, model and budget, the level it stands at and the size it comes to, and for each that is measured."""
    yield from _of_rows(experiment)
    if (block := experiment.benchmark) is not None:
        for name in block.shapes:
            yield from (f"benchmark, shape {name}: {sentence}" for sentence in _measured(block, block.shape(name)))


def _measured(block: BenchmarkSettings, shape: ModelShape) -> Iterator[str]:
    if (inference := block.inference) is not None:
        yield from (f"inference: {line}" for line in solved(shape, inference.ratios, inference.align, BYTES[inference.precision]))
    if (tuning := block.tuning) is not None:
        yield from (f"tuning: {line}" for line in solved(shape, [tuning.ratio], tuning.pat.align, BYTES[tuning.precision]))


def _of_rows(experiment: Experiment) -> Iterator[str]:
    for model in experiment.models:
        for row in experiment.rows_on(model):
            for budget in (asked for asked in experiment.asked_of(row) if isinstance(asked, Budget)):
                fit, level = experiment.fit(model, row, budget), experiment.level(model, budget)
                yield (
                    f"methods.{row}, models.{model}: budget {budget} stands at {level:g}: {fit.size}, {fit.parameters:,} parameters at most"
                )
