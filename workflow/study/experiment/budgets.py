"""An experiment's budgets before anything runs: that every row can meet them, and what they come to, in sentences."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import ValidationError

from pat.benchmark.settings import BYTES, BenchmarkSettings, ModelShape, solved
from pat.errors import SettingError
from pat.settings.budget import Budget
from study.experiment.schema import Experiment


def budget_problems(experiment: Experiment) -> Iterator[str]:
    """Check that every budget can be met by every row that has it, and that it does not stand where a ratio does."""
    for model in experiment.models:
        for row in (row for row, method in experiment.known_rows.items() if method.prunes and model in experiment.models_of(row)):
            asked_for, levels = experiment.asked_of(row), dict[str, str]()
            for asked in asked_for if any(isinstance(each, Budget) for each in asked_for) else ():
                try:
                    name, level = str(asked), f"{experiment.level(model, asked):g}"
                    if isinstance(asked, Budget):
                        experiment.fit(model, row, asked)
                except ValidationError:
                    continue  # of the row's settings, reported elsewhere
                except SettingError as error:
                    yield f"methods.{row}, models.{model}: ratios: {error}"
                    continue
                if (first := levels.setdefault(level, name)) != name:
                    yield f"methods.{row}, models.{model}: ratios: {first} and {name} both come to {level} of its parameters; keep one"


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
        for row in experiment.methods:
            for asked in experiment.asked_of(row) if model in experiment.models_of(row) else ():
                if isinstance(asked, Budget):
                    fit, level = experiment.fit(model, row, asked), experiment.level(model, asked)
                    yield (
                        f"methods.{row}, models.{model}: budget {asked} stands at {level:g}: {fit.size}, "
                        f"{fit.parameters:,} parameters at most"
                    )
