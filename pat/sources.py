"""Where data and base models come from: one checked model a kind of source. Reads nothing; the workflow's scripts do."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from pat.fields import Count, Number, SeedNumber, Settings
from pat.settings import PretrainSettings

WORLD_TASKS = ("animals", "capitals", "continents", "elements", "languages", "opposites", "sums", "verbs")
WORLD_TEXTS = ("heldout",)
JSON_FORMATS = (".json", ".jsonl", ".json.xz", ".jsonl.xz")
TABLE_FORMATS = {".parquet": "parquet", ".csv": "csv"}
"""A hub's data set as it is stored, by the file's ending; the names are those of the library that reads them."""


def _printable(value: str) -> str:
    """Return the text. Raises ValueError where it holds what no path and no name can."""
    if any(ord(character) < 32 for character in value):
        raise ValueError("must be of printable characters")
    return value


Text = Annotated[str, Field(min_length=1), AfterValidator(_printable)]
Share = Annotated[Number, Field(gt=0, le=1)]


def _whole(share: float) -> bool:
    """A setting that came later leaves the record of those who do not use it as it was."""
    return share == 1.0


class WorldSettings(Settings):
    """Sizes of what the embedded world writes; the same seed and sizes give the same bytes."""

    seed: SeedNumber = 0
    pretrain_texts: Count = 40_000
    heldout_texts: Count = 100
    instruct_rows: Count = 4_000
    items_per_task: Count = 60


class World(Settings):
    """The embedded generator; a task's or a text's name says which of its files."""

    source: Literal["world"]


class JsonFile(Settings):
    """A local file: .json (a list of records), .jsonl or .jsonl.xz."""

    source: Literal["json"]
    path: Text


class JsonRows(JsonFile):
    """A local file of instructions or texts, or a share of it drawn with the seed."""

    fraction: Share = 1.0


class TextFile(Settings):
    """A local plain text file, or the share of it that it begins with."""

    source: Literal["text"]
    path: Text
    fraction: Share = Field(default=1.0, exclude_if=_whole)


class Release(Settings):
    """The paper authors' evaluation JSON: one file, or a folder of files that together make one task."""

    source: Literal["release"]
    path: Text


class Hub(Settings):
    """A data set of the Hugging Face hub: a network is needed once, in the rule that fetches it."""

    source: Literal["hub"]
    id: Text
    revision: Text = "main"
    config: Text | None = None
    split: Text = "train"
    fraction: Share = 1.0


TaskLayout = Literal[
    "arc_challenge", "arc_easy", "boolq", "copa", "hellaswag", "mmlu", "multirc",
    "openbookqa", "piqa", "rte", "siqa", "wic", "winogrande", "wsc",
]  # fmt: skip


class HubTask(Settings):
    """One of the paper's tasks as the hub has it. `layout` says how its rows are read and where they lie unless told otherwise."""

    source: Literal["hub"]
    layout: TaskLayout
    id: Text | None = None
    revision: Text | None = None
    config: Text | None = None
    split: Text | None = None
    path: Text | None = Field(default=None, description="local file with the data set's rows, in place of the hub")


class Tasks(Settings):
    """Items of tasks as instructions whose output is the right choice's letter: the paper's downstream tuning (its table 3).

    Name training splits here: what is tuned on must not be scored.
    """

    source: Literal["tasks"]
    of: Annotated[dict[str, Annotated[JsonFile | Release | HubTask, Field(discriminator="source")]], Field(min_length=1)]


InstructSource = Annotated[World | JsonRows | Hub | Tasks, Field(discriminator="source")]
TaskSource = Annotated[World | JsonFile | Release | HubTask, Field(discriminator="source")]
TextSource = Annotated[World | JsonRows | TextFile | Hub, Field(discriminator="source")]


def parts(source: Settings) -> list[Settings]:
    """Return the sources that a source reads: those it is made of, or itself."""
    return list(source.of.values()) if isinstance(source, Tasks) else [source]


class CalibrationPart(Settings):
    """One of the sets that calibration text is mixed from, and its share of the characters."""

    of: Literal["instruct", "pretrain"]
    share: Share = 1.0


class Data(Settings):
    """All data of an experiment. Keys of `tasks` and `text` are the names that stand in the tables."""

    world: WorldSettings = WorldSettings()
    instruct: InstructSource
    tasks: dict[str, TaskSource] = {}
    text: dict[str, TextSource] = {}
    pretrain: TextSource | None = None
    calibration: Literal["instruct", "pretrain"] | Annotated[tuple[CalibrationPart, ...], Field(strict=False, min_length=1)] | None = Field(
        default=None, description="what bases, refits and pruners measure on; None: half instruct, half pretrain where that is given"
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

    id: Text
    revision: Text = "main"


class ModelSource(Settings):
    """A base model, from exactly one place, and what is different for it from the rest of the experiment."""

    pretrain: PretrainSettings | None = None
    path: Text | None = None
    gguf: Text | None = Field(default=None, description="a GGUF file")
    dtype: Literal["bf16", "fp16", "fp32"] | None = Field(default=None, description="what a GGUF file's weights become; None: bf16")
    hub: HubModel | None = Field(default=None, validate_default=True)
    tuning: dict[str, object] = {}
    pat: dict[str, object] = {}
    prune: dict[str, object] = {}
    evaluation: dict[str, object] = {}
    resources: dict[str, object] = {}

    @field_validator("hub")
    @classmethod
    def _one_place(cls, hub: HubModel | None, info: ValidationInfo) -> HubModel | None:
        if {"pretrain", "path", "gguf"} <= info.data.keys():
            places = [info.data["pretrain"], info.data["path"], info.data["gguf"], hub]
            if sum(place is not None for place in places) != 1:
                raise ValueError("give exactly one of pretrain, path, gguf and hub")
        return hub

    @field_validator("dtype")
    @classmethod
    def _of_a_gguf(cls, dtype: str | None, info: ValidationInfo) -> str | None:
        if dtype is not None and info.data.get("gguf") is None:
            raise ValueError("must be left out without gguf, because other models keep the dtype of their checkpoint")
        return dtype
