"""Reads cells' results (cell.json, schema 1) and checks that they belong together.

Owns the shape of a cell's JSON as the report sees it and the order of rows in every table and figure. Of statistics it knows how far a
perplexity may be off, by its own text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pat.errors import UserError
from pat.io.artefacts import read_json
from study.experiment.checks.names import SAFE_NAME
from study.experiment.methods import METHODS, name_of_row
from study.experiment.table_settings import METRICS, Factor
from study.statistics.intervals import ratio_error, related_neighbours, student_quantile

SCHEMA = 1
ROUNDING = 1e-6
"""Beyond this an accuracy is not the share of the items that are right."""
METRIC_LABELS = {
    "first_capital": "first capital letter (the paper's scoring)",
    "first_capital_word": "first capital letter standing alone",
    "acc": "log-likelihood, acc",
    "acc_norm": "log-likelihood normalised by length, acc_norm",
}
_REGISTRY_ORDER = {name: position for position, name in enumerate(METHODS)}
_TEXT_AND_NUMBER = re.compile(r"(\D*)(\d*)")


Name = Annotated[str, Field(pattern=rf"^{SAFE_NAME.pattern}$")]
"""Of a model or a row: it becomes part of the tables' file names."""
Unit = Literal["token", "byte"]
"""What a perplexity is of."""
UNITS: tuple[Unit, ...] = get_args(Unit)
LEAST_WINDOWS = 50
"""Of fewer windows of one document, taken for related, the error would come out too small."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, protected_namespaces=())


class Score(_Part):
    """An accuracy in 0..1, its binomial standard error over items, and which items are right: a 1 or 0 each, in the items' order."""

    value: float = Field(ge=0, le=1)
    stderr: float | None = Field(default=None, ge=0)
    right: str | None = Field(default=None, pattern="^[01]+$")


class CutAnswers(_Part):
    """Generated answers that had not ended when they were as long as was asked for; those that had named no choice by then."""

    all: int = Field(ge=0)
    without_choice: int = Field(ge=0)


class TaskResult(_Part):
    """One task of one cell: item count, accuracy of guessing, a score a metric; `items_hash` tells whether two cells had the same items."""

    items: int = Field(gt=0)
    chance: float = Field(ge=0, le=1)
    scores: dict[str, Score]
    items_hash: str | None = None
    cut_answers: CutAnswers | None = None

    @model_validator(mode="after")
    def _scores_are_those_of_the_items(self) -> TaskResult:
        for metric, score in self.scores.items():
            if score.right is not None and len(score.right) != self.items:
                raise ValueError(f"{metric}: tells {len(score.right)} items right or wrong; must be {self.items}")
            if score.right is not None and abs(score.right.count("1") / self.items - score.value) > ROUNDING:
                raise ValueError(f"{metric}: has {score.right.count('1')} of {self.items} items right, which is not {score.value:g}")
        return self


class Losses(_Part):
    """Of each piece of a text, in its order: summed loss in nats, and tokens."""

    losses: list[float]
    tokens: list[int]

    @model_validator(mode="after")
    def _same_number(self) -> Losses:
        if len(self.losses) != len(self.tokens):
            raise ValueError(f"has {len(self.losses)} losses and the tokens of {len(self.tokens)}; must be as many")
        return self

    @property
    def neighbours(self) -> int:
        """How many pieces before and behind each are related to it."""
        return 0

    def sizes(self, unit: Unit) -> list[int] | None:
        """Return how many units each piece has, None where that is not on record."""
        return self.tokens if unit == "token" else None


class Documents(Losses):
    """Each document of a text, which stands alone; `bytes` are each one's in UTF-8."""

    bytes: list[int] | None = None

    def sizes(self, unit: Unit) -> list[int] | None:
        """Return how many units each document has."""
        return self.tokens if unit == "token" else self.bytes


class Windows(Losses):
    """Each window of a text that is one document. What follows each other has the same subject."""

    @property
    def neighbours(self) -> int:
        """How many windows before and behind each are related to it."""
        return related_neighbours(len(self.losses))


class Perplexity(_Part):
    """Perplexity per token and per UTF-8 byte; only the latter can be compared between tokenizers.

    A text that is one document tells the losses of its windows too.
    """

    token_perplexity: float = Field(gt=0)
    byte_perplexity: float = Field(gt=0)
    documents: Documents | None = None
    windows: Windows | None = None

    @property
    def pieces(self) -> Losses | None:
        """What its error is estimated over: the windows of a text that is one document, where there are enough, else the documents."""
        enough = self.windows is not None and len(self.windows.losses) >= LEAST_WINDOWS
        return self.windows if enough else self.documents

    def value(self, unit: Unit) -> float:
        """Return the perplexity a unit."""
        return self.token_perplexity if unit == "token" else self.byte_perplexity

    def half_width(self, unit: Unit) -> float | None:
        """Return that of the 95 % interval of the perplexity a unit over the text's pieces, linearised; None where they do not tell it."""
        pieces = self.pieces
        sizes = None if pieces is None else pieces.sizes(unit)
        if pieces is None or sizes is None:
            return None
        error = ratio_error(np.array(pieces.losses), np.array(sizes), pieces.neighbours)
        return None if error is None else self.value(unit) * error * student_quantile(int(np.count_nonzero(sizes)))


class HarnessTask(_Part):
    """What lm-eval gave of one of its own tasks: its figures by their names there, such as "acc,none" and "acc_stderr,none"."""

    items: int | None = None
    scores: dict[str, float] = {}


class Width(_Part):
    """Hidden size of the base model and of the merged one."""

    before: int = Field(gt=0)
    after: int = Field(gt=0)


class Count(_Part):
    """Parameters: each tensor once, and without the embeddings."""

    unique: int = Field(gt=0)
    without_embeddings: int = Field(gt=0)


class Parameters(_Part):
    """Counts of the base model and of the merged one."""

    before: Count
    after: Count


class Cell(_Part):
    """The result of one (model, method, ratio, seed); `method` is the row's name, `base_method` its entry in the registry.

    Where the pruning cuts a tuning in two, `tuning_before` is the record of the first part and `tuning` that of the second.
    """

    experiment: str
    model: Name
    method: Name
    base_method: str
    label: str
    mode: str
    ratio_requested: float = Field(ge=0, lt=1)
    ratio_effective: float = Field(ge=0, lt=1)
    seed: int
    factors: dict[str, Factor] = {}
    hidden_size: Width
    parameters: Parameters
    trainable_parameters: int | None
    logit_gap: float | None
    kl_on_text: float | None = None
    tasks: dict[str, TaskResult]
    perplexity: dict[str, Perplexity]
    harness: dict[str, HarnessTask] = {}
    tuning: dict[str, Any] | None
    tuning_before: dict[str, Any] | None = None
    origin: dict[str, Any] | None = None
    provenance: dict[str, dict[str, Any] | None]
    path: Path

    @property
    def tunings(self) -> list[dict[str, Any]]:
        """The records of what was tuned, in order: none, one, or two where the pruning lies between."""
        return [record for record in (self.tuning_before, self.tuning) if record]

    @property
    def row(self) -> Row:
        """The table row this cell belongs to."""
        return Row(ratio=self.ratio_requested, method=self.method, label=self.label, mode=self.mode, base_method=self.base_method)


class Row(_Part):
    """One row of a table: a method at a requested ratio."""

    ratio: float
    method: str
    label: str
    mode: str
    base_method: str

    @property
    def name(self) -> str:
        """What a figure or a sentence calls the row's method."""
        return name_of_row(self.label, self.mode)

    @property
    def order(self) -> tuple[float, bool, int, list[tuple[str, float]], str]:
        """The paper's order: by ratio, PAT last, a baseline's two modes together (as in the registry), numbers in a row's name by size.

        A name has no decimal point: 05 stands for 0.5, before 1.
        """
        parts = [
            (text, float(f"0.{digits}" if digits.startswith("0") else digits or 0))
            for text, digits in _TEXT_AND_NUMBER.findall(self.method)
        ]
        return (self.ratio, self.mode == "PAT", _REGISTRY_ORDER.get(self.base_method, len(METHODS)), parts, self.method)


def read_cells(paths: Iterable[Path]) -> list[Cell]:
    """Return the cells in one fixed order, whatever the order of `paths`.

    Raises UserError for a file that is missing, broken or of another schema, and for cells that cannot stand in one table.
    """
    cells = [_read(path) for path in sorted(set(paths), key=str)]
    if not cells:
        raise UserError("--cells: names no cell.json; at least one is needed")
    cells.sort(key=lambda cell: (cell.model, cell.row.order, cell.seed))
    _check_unique(cells)
    _check_same(cells, "experiment", {cell.path: {"experiment": cell.experiment} for cell in cells})
    for name in ("items", "chance"):
        _check_same(cells, name, {cell.path: {task: getattr(it, name) for task, it in cell.tasks.items()} for cell in cells})
    hashes = {cell.path: {task: it.items_hash for task, it in cell.tasks.items() if it.items_hash} for cell in cells}
    _check_same(cells, "the hash of the items", hashes)
    documents = {
        cell.path: {f"{text} on {cell.model}": (len(it.documents.tokens), sum(it.documents.tokens))
                    for text, it in cell.perplexity.items() if it.documents}
        for cell in cells
    }  # fmt: skip
    _check_same(cells, "the numbers of documents and tokens", documents)
    _check_same(
        cells,
        "label, mode, base_method or factors of the row",
        {cell.path: {cell.method: (cell.label, cell.mode, cell.base_method, cell.factors)} for cell in cells},
    )
    return cells


def _read(path: Path) -> Cell:
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: must be a JSON object, is {type(content).__name__}")
    if content.get("schema") != SCHEMA:
        raise UserError(f"{path}: schema is {content.get('schema')!r}; this version reads schema {SCHEMA}; run the cell again")
    try:
        return Cell.model_validate({**content, "path": path})
    except ValidationError as error:
        if text := _beyond_numbers(content):
            raise UserError(
                f"{path}: its perplexity of {text} is too large for a number, which no mean can take in: leave this row, ratio or seed out "
                "of the experiment, or tune it at a smaller rate"
            ) from None
        problems = "; ".join(f"{'.'.join(map(str, it['loc']))}: {it['msg']}" for it in error.errors())
        raise UserError(f"{path}: is not a cell's result: {problems}") from None


def _beyond_numbers(content: Mapping[str, Any]) -> str | None:
    """Return the first text whose perplexity an evaluation could not write as a number; None where there is none."""
    texts = content.get("perplexity")
    found = texts.items() if isinstance(texts, Mapping) else ()
    return next((name for name, it in found if isinstance(it, Mapping) and it.get("token_perplexity", 0) is None), None)


def _check_unique(cells: Sequence[Cell]) -> None:
    for one, other in pairwise(cells):
        if (one.model, one.row, one.seed) == (other.model, other.row, other.seed):
            name = f"{one.model}, {one.method}, ratio {one.ratio_requested:g}, seed {one.seed}"
            raise UserError(f"{one.path} and {other.path}: both are {name}; name each cell once")


def _check_same(cells: Sequence[Cell], what: str, facts: Mapping[Path, Mapping[str, object]]) -> None:
    """Raise UserError where two cells say different things of the same key: their numbers could not be compared."""
    first: dict[str, tuple[object, Path]] = {}
    for cell in cells:
        for key, value in facts[cell.path].items():
            known, path = first.setdefault(key, (value, cell.path))
            if known != value:
                raise UserError(
                    f"{path} and {cell.path}: differ in {what} of {key} ({known!r} and {value!r}); "
                    "cells of one table must come from one experiment file and the same data"
                )


def metrics_of(cells: Iterable[Cell]) -> list[str]:
    """Return the metrics that any cell has, the headline first."""
    found = {metric for cell in cells for task in cell.tasks.values() for metric in task.scores}
    return [metric for metric in METRICS if metric in found] + sorted(found - set(METRICS))


def models_of(cells: Iterable[Cell]) -> list[str]:
    """Return the models' names in alphabetical order."""
    return sorted({cell.model for cell in cells})


def rows_of(cells: Iterable[Cell]) -> list[Row]:
    """Return the rows in the paper's order."""
    return sorted({cell.row for cell in cells}, key=lambda row: row.order)


def tasks_of(cells: Iterable[Cell], metric: str) -> list[str]:
    """Return the tasks that any cell scored by `metric`, in alphabetical order."""
    return sorted({name for cell in cells for name, task in cell.tasks.items() if metric in task.scores})
