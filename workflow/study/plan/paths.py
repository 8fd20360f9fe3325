"""Where an experiment's files lie, as patterns of wildcards, and what a rule's functions are called with."""

from __future__ import annotations

from pathlib import PurePath
from types import SimpleNamespace
from typing import Any, Protocol

from study.experiment.schema import TUNED_ROW, Cell

BEFORE = "before"
"""What stands at a ratio's place in the paths of what a row makes before its pruning, which all its ratios share."""


class Wildcards(Protocol):
    """What a rule's functions are called with; which of these it has depends on the rule."""

    model: str
    row: str
    ratio: str
    seed: str
    shape: str
    mask: str
    figure: str


class Paths:
    """The folders of one experiment's results: of an arm, which all its seeds share, of a cell, of its scores."""

    def __init__(self, name: str) -> None:
        self.results = f"results/{name}"
        self.arm = f"{self.results}/checkpoints/{{model}}/{{row}}/{{ratio}}"
        self.cell = f"{self.arm}/seed{{seed}}"
        self.arm_before = f"{self.results}/checkpoints/{{model}}/{{row}}/{BEFORE}"
        self.before = f"{self.arm_before}/seed{{seed}}"
        self.tuned_cell = f"{self.results}/checkpoints/{{model}}/{TUNED_ROW}/0/seed{{seed}}"
        self.scores = f"{self.results}/evaluation/{{model}}/{{row}}/{{ratio}}/seed{{seed}}"


def before_the_cut(place: PurePath) -> PurePath:
    """Return where the row of a cell at this place, model/row/ratio/seed, has what it made before its pruning."""
    return place.parent.with_name(BEFORE) / place.name


def wildcards_of(cell: Cell, **others: str) -> Any:
    """Return what a rule's functions are called with for a cell; `others` stand in place of its own."""
    own = {"model": cell.model, "row": cell.row, "ratio": f"{cell.ratio:g}", "seed": str(cell.seed)}
    return SimpleNamespace(**own | others)


def of_cell(pattern: str, wildcards: Wildcards) -> str:
    """Return a pattern's path for a cell."""
    return pattern.format(model=wildcards.model, row=wildcards.row, ratio=wildcards.ratio, seed=wildcards.seed)


def of_arm(pattern: str, wildcards: Wildcards) -> str:
    """Return a pattern's path for an arm."""
    return pattern.format(model=wildcards.model, row=wildcards.row, ratio=wildcards.ratio)
