"""What budgets come to on an experiment's models, before anything runs: the level they stand at in tables, and each row's size.

A budget's level is the share of the model's parameters that goes, so that all rows of a model stand on one line. What a row's commands are
asked for, a share of its hidden size, say, is solved for each row by what its method cuts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from pat.errors import SettingError, UserError
from pat.models.budget import Fit, width_fit
from pat.models.on_paper import PaperModel
from pat.pruners import PRUNERS
from pat.settings.budget import Budget
from pat.settings.jobs import PruneSettings
from study.experiment.footprint import shape_of
from study.experiment.schema import Experiment
from study.experiment.shortfall import breaks_the_tie

LEVEL_DIGITS = 4
"""A level names folders and lines of tables."""
BYTES = {"bf16": 2, "fp16": 2, "fp32": 4}
PRETRAINED_BYTES = 4
"""What `pat pretrain` writes is fp32."""


def level_of(experiment: Experiment, model: str, budget: Budget) -> float:
    """Return the share of a model's parameters that goes with a budget, rounded up. Raises SettingError where it is not known."""
    sizes, bytes_each = _sizes(experiment, model)
    allowed, unit = budget.allowed(sizes.parameters, bytes_each), 10**LEVEL_DIGITS
    level: float = math.floor((1 - (allowed + 1) / sizes.parameters) * unit) / unit
    while _left_at(sizes, level) > allowed:
        level = round(level + 1 / unit, LEVEL_DIGITS)
    if level >= 1:
        raise SettingError(f"budget {budget}: leaves nothing of {sizes.parameters:,} parameters; allow more")
    return level


def fit_of(experiment: Experiment, model: str, row: str, budget: Budget) -> Fit:
    """Return what a budget comes to in a row's sizes on a model. Raises SettingError where that cannot be."""
    sizes, _ = _sizes(experiment, model)
    level = experiment.level(model, budget)
    allowed = _left_at(sizes, level)
    align = experiment.tune_job(model, row).pat.align
    pruner = experiment.method(row).pruner
    if pruner is None:
        broken = sizes.tied and breaks_the_tie(experiment, model, row)
        return width_fit(sizes, allowed, PruneSettings(tie="break" if broken else "keep"), align)
    fit = PRUNERS[pruner].fit(sizes, allowed, experiment.prune_settings(model, row), align)
    is_share = abs(fit.ratio - level) < 2e-6
    return Fit(level, fit.size, fit.parameters) if is_share else fit


def _left_at(sizes: PaperModel, level: float) -> int:
    """Return how many parameters stay at a level at most."""
    return math.floor(sizes.parameters * (1 - level) + 1e-6)


def _sizes(experiment: Experiment, model: str) -> tuple[PaperModel, float]:
    """Return a model's sizes and the bytes of a parameter. Raises SettingError where they are not known before it is fetched."""
    source = experiment.models[model]
    if source.pretrain is not None:
        return PaperModel.of(source.pretrain), PRETRAINED_BYTES
    if source.gguf is not None:
        return _sizes_in_gguf(Path(experiment.path(source.gguf))), BYTES[source.dtype or "bf16"]
    if source.path is None:
        raise SettingError(f"models.{model}.hub: its sizes are not known before it is fetched, so no budget can be solved; give ratios")
    from pat.pruners.budget import counted

    try:
        return counted(Path(experiment.path(source.path)))
    except UserError as error:
        raise SettingError(f"models.{model}.path: {error}") from None


def _sizes_in_gguf(file: Path) -> PaperModel:
    from pat.checkpoints.gguf_import import check_header, header_fields, read_header

    try:
        header = read_header(file)
        check_header(file, header)
    except UserError as error:
        raise SettingError(str(error)) from None
    return PaperModel.of(shape_of(header_fields(header)))


def budget_problems(experiment: Experiment) -> Iterator[str]:
    """Check that every budget can be met by every row that has it, and that it does not stand where a ratio does."""
    for model in experiment.models:
        for row in (row for row, method in experiment.known_rows.items() if method.prunes and model in experiment.models_of(row)):
            asked_for, levels = experiment.asked_of(row), dict[str, str]()
            for asked in asked_for if any(isinstance(each, Budget) for each in asked_for) else ():
                try:
                    name, level = str(asked), f"{experiment.level(model, asked):g}"
                    if isinstance(asked, Budget):
                        fit_of(experiment, model, row, asked)
                except ValidationError:
                    continue  # of the row's settings, told elsewhere
                except SettingError as error:
                    yield f"methods.{row}, models.{model}: ratios: {error}"
                    continue
                if (first := levels.setdefault(level, name)) != name:
                    yield f"methods.{row}, models.{model}: ratios: {first} and {name} both come to {level} of its parameters; keep one"


def solved_budgets(experiment: Experiment) -> Iterator[str]:
    """Yield a sentence for each row, model and budget: the level it stands at, and the size it comes to."""
    for model in experiment.models:
        for row in experiment.methods:
            for asked in experiment.asked_of(row) if model in experiment.models_of(row) else ():
                if isinstance(asked, Budget):
                    fit, level = fit_of(experiment, model, row, asked), experiment.level(model, asked)
                    yield (
                        f"methods.{row}, models.{model}: budget {asked} stands at {level:g}: {fit.size}, "
                        f"{fit.parameters:,} parameters at most"
                    )
