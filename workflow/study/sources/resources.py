"""What a job of each phase asks the scheduler for."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pat.settings.fields import Count, CountOrZero, Settings
from pat.settings.limits import MOST


class PhaseResources(Settings):
    """What the scheduler sets aside for one job of a phase; None: by the model's size. Never changes a number in a table."""

    gpu: CountOrZero | None = Field(default=None, description="GPUs")
    mem_mb: Annotated[int, Field(ge=100, le=MOST)] | None = Field(default=None, description="memory in MB")
    runtime: Count | None = Field(default=None, description="minutes")


class Resources(Settings):
    """Resources per phase; a model's entry may override them."""

    prepare: PhaseResources = Field(default=PhaseResources(), description="of a job that prepares data")
    pretrain: PhaseResources = Field(default=PhaseResources(), description="of a job that trains a base")
    tune: PhaseResources = Field(default=PhaseResources(), description="of a job that tunes")
    prune: PhaseResources = Field(default=PhaseResources(), description="of a job that prunes, rotates or refits")
    merge: PhaseResources = Field(default=PhaseResources(), description="of a job that merges")
    evaluate: PhaseResources = Field(default=PhaseResources(), description="of a job that scores a checkpoint")
    benchmark: PhaseResources = Field(default=PhaseResources(), description="of a job that measures a shape")
