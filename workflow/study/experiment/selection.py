"""A part of the grid: the models, rows, ratios and seeds that a run makes before, or beside, the others."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Discriminator, Field, Tag

from pat.settings.agreement import each_once
from pat.settings.budget import NUMBER, Budget, kind_of
from pat.settings.fields import Number, Settings
from study.experiment.row import Seeds

Names = Annotated[tuple[str, ...], Field(strict=False, min_length=1), AfterValidator(each_once)]
Level = Annotated[Annotated[Number, Field(ge=0, lt=1), Tag(NUMBER)] | Annotated[Budget, Tag(Budget.__name__)], Discriminator(kind_of)]
"""As a ratio or budget of the experiment, or 0, at which rows run that do not prune."""
Levels = Annotated[tuple[Level, ...], Field(strict=False, min_length=1), AfterValidator(each_once)]


class Selection(Settings):
    """The cells that every list here names by its own; a list that is left out names all."""

    models: Names | None = Field(default=None, description="of these models")
    rows: Names | None = Field(default=None, description="of these rows")
    ratios: Levels | None = Field(default=None, description="at these of the experiment's ratios and budgets; 0: of rows that do not prune")
    seeds: Seeds | None = Field(default=None, description="with these seeds")
