"""A row of an experiment's tables as the file gives it: a method, or a checkpoint made elsewhere, and what is different for it."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from pat.settings.agreement import each_once
from pat.settings.budget import Asked
from pat.settings.config import PatChoices
from pat.settings.fields import Number, PartOf, SeedNumber, Settings
from pat.settings.jobs import LoraSettings, PruneSettings, TuningSettings
from study.experiment.table_settings import Factor

Seeds = Annotated[tuple[SeedNumber, ...], Field(strict=False, min_length=1), AfterValidator(each_once)]
Ratios = Annotated[tuple[Asked, ...], Field(strict=False), AfterValidator(each_once)]


class GivenCheckpoint(Settings):
    """A checkpoint that was made elsewhere, which stands in the tables as a row of its own."""

    path: Annotated[str, Field(min_length=1)] = Field(description="folder of a model, as `save_pretrained` writes it")
    ratio: Annotated[Number, Field(ge=0, lt=1)] = Field(
        default=0.0, description="share it is pruned by, and so the ratio that its row stands at"
    )
    of: str | None = Field(default=None, description="model that it was made from; left out: the experiment's one")


class Row(Settings):
    """A row of the tables: a method and what is different for it from the experiment's recipe."""

    method: str | None = Field(default=None, description="the method; left out: the row's own name")
    label: Annotated[str, Field(min_length=1)] | None = Field(default=None, description="name in tables; left out: the method's")
    tuning: Annotated[dict[str, object], PartOf(TuningSettings)] = Field(default={}, description="differences of this row from `tuning`")
    lora: Annotated[dict[str, object], PartOf(LoraSettings)] = Field(default={}, description="short for `tuning: {lora: …}`")
    pat: Annotated[dict[str, object], PartOf(PatChoices)] = Field(default={}, description="differences of this row from `pat`")
    prune: Annotated[dict[str, object], PartOf(PruneSettings)] = Field(default={}, description="differences of this row from `prune`")
    checkpoint: GivenCheckpoint | None = Field(default=None, description="a checkpoint made elsewhere, scored as it is")
    seeds: Seeds | None = Field(default=None, description="those of the experiment's seeds that the row runs with; left out: all")
    ratios: Annotated[Ratios, Field(min_length=1)] | None = Field(
        default=None, description="those of the experiment's ratios and budgets that the row runs at; left out: all"
    )
    factors: dict[str, Factor] = Field(default={}, description="factor → value: the row's place in ablation tables")
