"""A budget given by hand in place of a ratio, for whatever a pruner cuts: solved before any work, and told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import ValidationError

from pat.checkpoints.budget import counted
from pat.errors import UserError
from pat.models.budget import ratio_within
from pat.models.on_paper import Align, PaperModel
from pat.pruners.registry import pruner_named
from pat.settings.budget import Budget
from pat.settings.jobs import PruneSettings
from pat.settings.mistakes import wanted

OPTIONS = "--ratio, --budget-parameters and --budget-memory-gib"


def given_ratio(ratio: float | None, parameters: float | None, memory_gib: float | None) -> float | Budget | None:
    """Return the ratio or the budget that options name; None where they name neither. Raises UserError where they name two."""
    if sum(each is not None for each in (ratio, parameters, memory_gib)) > 1:
        raise UserError(f"give one of {OPTIONS}")
    if parameters is None and memory_gib is None:
        return ratio
    try:
        return Budget(parameters=parameters, memory_gib=memory_gib)
    except ValidationError as error:
        option = "--budget-parameters" if parameters is not None else "--budget-memory-gib"
        raise UserError(f"{option} {parameters if memory_gib is None else memory_gib}: {wanted(error.errors()[0]['msg'])}") from None


def prune_ratio(base: Path, pruner: str, asked: float | Budget | None, settings: PruneSettings, align: Align) -> float:
    """Return the ratio that a pruner is asked for, or at which it keeps a model within a budget. Raises UserError where it is not known."""
    return ratio_on(lambda: counted(base), pruner, asked, settings, align)


def ratio_on(
    sizes: Callable[[], tuple[PaperModel, int]], pruner: str, asked: float | Budget | None, settings: PruneSettings, align: Align
) -> float:
    """Return the same for the model whose sizes, and bytes a parameter, are counted where there is a budget."""
    if asked is None:
        raise UserError(f"--pruner {pruner}: one of {OPTIONS} is needed")
    if isinstance(asked, Mapping):  # from Python
        asked = Budget.model_validate(asked)
    if not isinstance(asked, Budget):
        return asked
    within = pruner_named(pruner).fit
    return ratio_within(*sizes(), asked, within, settings, align)
