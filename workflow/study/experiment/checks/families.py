"""What a row does to its base, against what the base's family allows: checked before a model is made or read."""

from __future__ import annotations

from collections.abc import Iterator

from pat.families.known import Family, family_named
from pat.pruners import PRUNERS
from study.experiment.checks.taken import taken
from study.experiment.schema import Experiment


def family_problems(experiment: Experiment) -> Iterator[str]:
    """Check the rows of the models that are pretrained, whose family the file gives."""
    for model, source in experiment.models.items():
        if source.pretrain is not None:
            yield from problems_of(experiment, model, family_named(source.pretrain.family))


def problems_of(experiment: Experiment, model: str, family: Family) -> Iterator[str]:
    """Yield the rows that prune or rotate a model in a way that its family does not allow."""
    for row, method in experiment.known_rows.items():
        if model not in experiment.models_of(row):
            continue
        where = f"methods.{row}, models.{model}"
        if method.pruner is not None and (reason := PRUNERS[method.pruner].obstacle(family)) is not None:
            yield f"{where}: the pruner {method.pruner!r} is not possible for a model of the family {family.model_type!r}: {reason}"
        if (reason := family.rotation_obstacle) is not None and taken(experiment.basis_of, model, row) not in (None, "native"):
            yield f"{where}: pat.basis is not possible for a model of the family {family.model_type!r}: {reason}"
