"""What an experiment says of its tables, and what its rows have of an ablation's factors."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from pat.settings.agreement import each_once
from pat.settings.fields import Settings

METRICS = ("first_capital", "first_capital_word", "acc", "acc_norm")
"""The scorings, the headline first; each of the others has tables of its own, whose names end in it."""
AccuracyTable = Literal["table1", "table3"]
"""The paper's tables of accuracies: zero-shot, and tuned on the tasks."""
ZERO_SHOT: AccuracyTable = "table1"
Factor = Annotated[str, Field(min_length=1)] | bool | int | Annotated[float, Field(allow_inf_nan=False)]
"""What a row has of a factor of an ablation; yes and no in YAML are true and false."""


class TableSettings(Settings):
    """The tables an experiment has beside those that every one has; `ablations` gives each its factors, columns that tell rows apart."""

    reference: str | None = Field(
        default=None,
        description="row that comparisons set all others beside, at its own ratios; left out: `pat`, else the first that prunes",
    )
    accuracy: AccuracyTable = Field(
        default=ZERO_SHOT, description="the paper's table that accuracies stand beside: table1 (zero-shot) or table3 (tuned on the tasks)"
    )
    ablations: dict[str, Annotated[tuple[str, ...], Field(strict=False, min_length=1), AfterValidator(each_once)]] = Field(
        default={}, description="name → list of factors; each makes a table `ablation_<name>` with a column per factor"
    )
