"""What an experiment measures and fits on, told before it is run where other text is likely to pay for it."""

from __future__ import annotations

from collections.abc import Iterator

from pat.pruners import PRUNERS
from study.experiment.schema import Experiment


def instructions_alone(experiment: Experiment) -> Iterator[str]:
    """Yield a sentence where rows measure on instructions alone and the file does not say that they are to."""
    if experiment.data.calibration is not None or experiment.data.pretrain is not None:
        return
    rows = [row for model in experiment.models for row in experiment.rows_on(model) if _measures(experiment, model, row)]
    if rows:
        others = " and others" if len(set(rows)) > 1 else ""
        yield (
            f"methods.{rows[0]}{others}: without data.pretrain all is measured and fitted on instructions alone, which costs other text "
            "more; give general text there, or say data.calibration: instruct"
        )


def _measures(experiment: Experiment, model: str, row: str) -> bool:
    """Return whether a row's pruner, basis or refit reads calibration text."""
    if (pruner := experiment.method(row).pruner) is not None:
        return PRUNERS[pruner].measures == "text"
    return experiment.basis_of(model, row) != "native" or experiment.readers_of(model, row) != "plain"
