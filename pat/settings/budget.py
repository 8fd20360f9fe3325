"""A budget in place of a ratio: how many parameters a model may have, or how much memory its weights may take. Knows no model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

from pydantic import Discriminator, Field, Tag, field_validator

from pat.errors import SettingError
from pat.settings.agreement import exactly_one_of
from pat.settings.fields import GIB, Number, Rate, Settings, is_none
from pat.settings.limits import MOST


class Budget(Settings):
    """What a pruned model may be at most; a ratio says what goes, a budget what stays."""

    parameters: Annotated[Number, Field(gt=0, le=MOST**2, allow_inf_nan=False)] | None = Field(
        default=None, exclude_if=is_none, description="parameters that stay at most, each counted once; below 1: share of the model's"
    )
    memory_gib: Rate | None = Field(
        default=None, validate_default=True, exclude_if=is_none, description="GiB that the weights take at most, in the dtype of the base"
    )

    _one_measure = field_validator("memory_gib")(exactly_one_of("parameters", "memory_gib"))

    def __str__(self) -> str:
        return f"parameters {self.parameters:g}" if self.parameters is not None else f"memory_gib {self.memory_gib:g}"

    def allowed(self, parameters: int, bytes_each: float) -> int:
        """Return how many parameters may stay of a model that has `parameters`, stored in so many bytes each.

        Raises SettingError where it has no more than that.
        """
        if self.memory_gib is not None:
            most = math.floor(self.memory_gib * GIB / bytes_each)
        else:
            assert self.parameters is not None
            most = math.floor(self.parameters * parameters if self.parameters < 1 else self.parameters)
        if most >= parameters:
            held = f"{parameters:,} parameters" + (f", {parameters * bytes_each / GIB:.4g} GiB" if self.memory_gib is not None else "")
            raise SettingError(f"budget {self}: the model has {held}, which is within it already; ask for less")
        return most


NUMBER = "number"


def kind_of(value: object) -> str:
    """Return by which of its kinds a ratio or budget is checked, so that a mistake is told of that alone."""
    return Budget.__name__ if isinstance(value, Mapping | Budget) else NUMBER


Asked = Annotated[Annotated[Number, Field(gt=0, lt=1), Tag(NUMBER)] | Annotated[Budget, Tag(Budget.__name__)], Discriminator(kind_of)]
"""A ratio, or a budget in its place."""
