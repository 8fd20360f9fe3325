"""Where data and base models come from: one checked model per kind of source. Reads nothing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from pat.data.files import KINDS, packing_of
from pat.data.rows import Column
from pat.settings.agreement import exactly_one_of
from pat.settings.config import PatChoices
from pat.settings.fields import Count, Number, PartOf, SeedNumber, Settings, equals
from pat.settings.jobs import EvaluationSettings, PretrainSettings, PruneSettings, TuningSettings
from study.sources.resources import Resources

WORLD_TASKS = ("animals", "capitals", "continents", "elements", "languages", "opposites", "sums", "verbs")
WORLD_TEXTS = ("heldout",)
TABLE_FORMATS = {".parquet": "parquet", ".csv": "csv"}
"""A hub's data set as it is stored, by the file's ending; the names are those of the library that reads them."""


def _printable(value: str) -> str:
    """Return the text. Raises ValueError where it holds what no path and no name can."""
    if any(ord(character) < 32 for character in value):
        raise ValueError("must be of printable characters")
    return value


HUB_NAME = re.compile(r"[A-Za-z0-9_]([\w.-]{0,94}[A-Za-z0-9_])?", re.ASCII)


def _hub_id(value: str) -> str:
    """Return the text. Raises ValueError where the hub can have nothing of that name."""
    parts = value.split("/")
    odd = any(each in value for each in ("--", "..")) or value.endswith(".git")
    if odd or len(parts) > 2 or not all(map(HUB_NAME.fullmatch, parts)):
        raise ValueError("must be owner/name, of letters, digits, '-', '_' and '.', as the hub has it; what is on this disk is a `path`")
    return value


def _no_rows(path: str) -> str:
    """Return the path. Raises ValueError where its ending says rows, whose marks would be read as words of one long text."""
    if path.removesuffix(packing_of(Path(path))).endswith(tuple(kind for kind in KINDS if kind != ".txt")):
        raise ValueError("must be plain text; a file of rows is read by source: file")
    return path


Text = Annotated[str, Field(min_length=1), AfterValidator(_printable)]
HubId = Annotated[str, Field(min_length=1), AfterValidator(_hub_id)]
Share = Annotated[Number, Field(gt=0, le=1)]


def _each_once(columns: dict[str, str]) -> dict[str, str]:
    """Return the columns. Raises ValueError where two of our fields would be read from one of the file's."""
    theirs = list(columns.values())
    if twice := next((name for place, name in enumerate(theirs) if name in theirs[:place]), None):
        raise ValueError(f"must name a column of the file for one field alone, names {twice!r} for two")
    return columns


class WorldSettings(Settings):
    """Sizes of what the embedded world writes; the same seed and sizes give the same bytes."""

    seed: SeedNumber = Field(default=0, description="seed of the texts")
    pretrain_texts: Count = Field(default=40_000, description="texts to pretrain on")
    heldout_texts: Count = Field(default=100, description="texts to measure perplexity on")
    instruct_rows: Count = Field(default=4_000, description="instructions")
    items_per_task: Count = Field(default=60, description="items of each task, at most the 12 to 24 that there are")


class World(Settings):
    """The embedded generator; a task's or a text's name says which of its files."""

    source: Literal["world"] = Field(description="the embedded generator")


class JsonFile(Settings):
    """A local file: .json (a list of records, or one a line) or .jsonl, perhaps compressed."""

    source: Literal["json"] = Field(description="a local JSON file")
    path: Text = Field(description="`.json` or `.jsonl`, perhaps compressed (`.gz`, `.xz`, `.bz2`, `.zst`)")


class JsonRows(JsonFile):
    """A local file of instructions or texts, or a share of it drawn with the seed."""

    fraction: Share = Field(default=1.0, description="share of the rows, always the same ones")


class RowFile(Settings):
    """A local file of rows in any format and form, or a share of it drawn with the seed."""

    source: Literal["file"] = Field(description="a local file of any format, or a folder saved by `datasets`")
    path: Text = Field(
        description="`.jsonl`, `.json`, `.csv`, `.parquet` or `.txt`, perhaps compressed (`.gz`, `.xz`, `.bz2`, `.zst`), or a folder "
        "that `save_to_disk` wrote"
    )
    columns: Annotated[dict[Column, Text], AfterValidator(_each_once)] = Field(
        default={}, description="our field → the file's; these alone are then read; left out: our names"
    )
    fraction: Share = Field(default=1.0, description="share of the rows, always the same ones")


class TextFile(Settings):
    """A local plain text file, or the share of it that it begins with."""

    source: Literal["text"] = Field(description="a local plain text file")
    path: Annotated[Text, AfterValidator(_no_rows)] = Field(description="the file, perhaps compressed")
    fraction: Share = Field(default=1.0, exclude_if=equals(1.0), description="share of the lines that it begins with")


class Release(Settings):
    """The paper authors' evaluation JSON: one file, or a folder of files that together make one task."""

    source: Literal["release"] = Field(description="the evaluation JSON of the paper's authors")
    path: Text = Field(description="a file, or a folder of files that together make one task, a group per file")


class Hub(Settings):
    """A data set of the Hugging Face hub: a network is needed once, in the rule that fetches it."""

    source: Literal["hub"] = Field(description="a data set of the hub")
    id: HubId = Field(description="the data set")
    revision: Text = Field(default="main", description="branch, tag or commit")
    config: Text | None = Field(default=None, description="the data set's configuration")
    split: Text = Field(default="train", description="the data set's split")
    columns: Annotated[dict[Column, Text], AfterValidator(_each_once)] = Field(
        default={},
        exclude_if=equals({}),
        description="our field → the set's; these alone are then read; left out: our names",
    )
    fraction: Share = Field(default=1.0, description="share of the rows, always the same ones")


TaskLayout = Literal[
    "arc_challenge", "arc_easy", "boolq", "copa", "hellaswag", "mmlu", "multirc",
    "openbookqa", "piqa", "rte", "siqa", "wic", "winogrande", "wsc",
]  # fmt: skip


class HubTask(Settings):
    """One of the paper's tasks as the hub has it. `layout` says how its rows are read and, by default, where they lie."""

    source: Literal["hub"] = Field(description="a task of the paper on the hub")
    layout: TaskLayout = Field(description="which task: how its rows are read and where they lie")
    id: HubId | None = Field(default=None, description="another data set")
    revision: Text | None = Field(default=None, description="another branch, tag or commit")
    config: Text | None = Field(default=None, description="another configuration")
    split: Text | None = Field(default=None, description="another split")
    path: Text | None = Field(default=None, description="local file with the data set's rows, in place of the hub")


class Tasks(Settings):
    """Items of tasks as instructions whose output is the right choice's letter: the paper's downstream tuning (its table 3).

    Name training splits here: what is tuned on must not be scored.
    """

    source: Literal["tasks"] = Field(description="training splits of tasks, asked as the paper asks them and answered by the letter")
    of: Annotated[dict[str, Annotated[JsonFile | Release | HubTask, Field(discriminator="source")]], Field(min_length=1)] = Field(
        description="name → source of a task; what is tuned on must not be scored"
    )


InstructSource = Annotated[World | JsonRows | RowFile | Hub | Tasks, Field(discriminator="source")]
TaskSource = Annotated[World | JsonFile | Release | HubTask, Field(discriminator="source")]
TextSource = Annotated[World | JsonRows | RowFile | TextFile | Hub, Field(discriminator="source")]


def parts(source: Settings) -> list[Settings]:
    """Return the sources that a source reads: those it is made of, or itself."""
    return list(source.of.values()) if isinstance(source, Tasks) else [source]


class CalibrationPart(Settings):
    """One of the sets that calibration text is mixed from, and its share of the characters."""

    of: Literal["instruct", "pretrain"] = Field(description="which set")
    share: Share = Field(default=1.0, description="its share of the characters; shares need not add up to one")


class Data(Settings):
    """All data of an experiment. Keys of `tasks` and `text` are the names that stand in the tables."""

    world: WorldSettings = Field(default=WorldSettings(), description="sizes of the embedded generator")
    instruct: InstructSource = Field(description="instructions to tune on")
    tasks: dict[str, TaskSource] = Field(default={}, description="name → multiple-choice items to score on")
    text: dict[str, TextSource] = Field(default={}, description="name → held-out text to measure perplexity on")
    pretrain: TextSource | None = Field(default=None, description="corpus of models with `pretrain`, and general text for calibration")
    calibration: Literal["instruct", "pretrain"] | Annotated[tuple[CalibrationPart, ...], Field(strict=False, min_length=1)] | None = Field(
        default=None,
        description="what bases, refits and pruners measure on; left out: half of each set where `pretrain` is given, else instructions",
    )

    @property
    def calibration_parts(self) -> tuple[CalibrationPart, ...]:
        """The sets that calibration text comes from, with their shares."""
        if self.calibration is None:
            own, general = CalibrationPart(of="instruct", share=0.5), CalibrationPart(of="pretrain", share=0.5)
            return (own, general) if self.pretrain is not None else (CalibrationPart(of="instruct"),)
        return (CalibrationPart(of=self.calibration),) if isinstance(self.calibration, str) else self.calibration


class HubModel(Settings):
    """A model of the Hugging Face hub; `revision` is a branch, a tag or, to be sure of the same weights, a commit."""

    id: HubId = Field(description="the model")
    revision: Text = Field(default="main", description="branch, tag or, to be sure of the same weights, commit")


class ModelSource(Settings):
    """A base model, from exactly one place, and what is different for it from the rest of the experiment."""

    pretrain: PretrainSettings | None = Field(default=None, description="a base trained here from `data.pretrain`")
    path: Text | None = Field(default=None, description="a local folder as `save_pretrained` writes it")
    gguf: Text | None = Field(
        default=None, description="a GGUF file of a Llama, Qwen2 or Qwen3, read once with its tokenizer and chat template"
    )
    dtype: Literal["bf16", "fp16", "fp32"] | None = Field(default=None, description="what a GGUF file's weights become; left out: bf16")
    hub: HubModel | None = Field(default=None, validate_default=True, description="a model of the hub")
    tuning: Annotated[dict[str, object], PartOf(TuningSettings)] = Field(default={}, description="differences of this model from `tuning`")
    pat: Annotated[dict[str, object], PartOf(PatChoices)] = Field(default={}, description="differences of this model from `pat`")
    prune: Annotated[dict[str, object], PartOf(PruneSettings)] = Field(default={}, description="differences of this model from `prune`")
    evaluation: Annotated[dict[str, object], PartOf(EvaluationSettings)] = Field(
        default={}, description="differences of this model from `evaluation`"
    )
    resources: Annotated[dict[str, object], PartOf(Resources)] = Field(default={}, description="differences of this model from `resources`")

    _one_place = field_validator("hub")(exactly_one_of("pretrain", "path", "gguf", "hub"))

    @property
    def gguf_dtype(self) -> str:
        """What the weights of a GGUF file become."""
        return self.dtype or "bf16"

    @field_validator("dtype")
    @classmethod
    def _of_a_gguf(cls, dtype: str | None, info: ValidationInfo) -> str | None:
        if dtype is not None and info.data.get("gguf") is None:
            raise ValueError("must be left out without gguf, because other models keep the dtype of their checkpoint")
        return dtype
