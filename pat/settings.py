"""What a run can be told: one checked, frozen model per component, and the reader for them.

Owns field names, ranges and defaults, and the wording of a mistake in them. Knows nothing of experiments, paths or torch.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails

from pat.artefacts import parse_json
from pat.config import Basis, Mask, MaskLearning, MaskPrior, Readers, Tie
from pat.errors import UserError
from pat.yaml_files import read_yaml

EXPONENT = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+")


def _number(value: object) -> object:
    """YAML 1.1 reads 1e-3 as text, because it lacks a dot; everybody who writes it means the number."""
    return float(value) if isinstance(value, str) and EXPONENT.fullmatch(value) else value


def _is_none(value: object) -> bool:
    """A setting that came later leaves the record of those who do not use it, and its hash, as they were."""
    return value is None


def _is(default: object) -> Callable[[object], bool]:
    """Return the same for a setting whose default is not None."""
    return lambda value: value == default


Number = Annotated[float, BeforeValidator(_number)]
MOST = 2**31 - 1
"""The largest whole number that torch's kernels count with."""
Count = Annotated[int, Field(gt=0, le=MOST)]
CountOrZero = Annotated[int, Field(ge=0, le=MOST)]
MOST_THREADS = 1024
Threads = Annotated[int, Field(gt=0, le=MOST_THREADS)]
LARGEST_SEED = 2**32 - 1
"""numpy's generators take no larger one."""
SeedNumber = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
LARGEST_FACTOR = 1e6
"""Beyond it, rates and factors of losses leave nothing of fp32's digits."""
Rate = Annotated[Number, Field(gt=0, le=LARGEST_FACTOR, allow_inf_nan=False)]
Weight = Annotated[Number, Field(ge=0, le=LARGEST_FACTOR, allow_inf_nan=False)]
Precision = Literal["fp32", "bf16"]
Device = Literal["auto", "cpu", "cuda"]
PLAIN_WORDS = {
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "tuple_type": "a list",
    "invalid_key": "text, since it is a key",
}
"""Pydantic's error types whose own wording speaks of Python to somebody who wrote YAML."""
SettingsT = TypeVar("SettingsT", bound="Settings")


class Settings(BaseModel):
    """Base of all settings: unknown keys are refused, values never change after checking, and 3 is not taken for "3" or true."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class LoraSettings(Settings):
    """Low-rank adapters on every linear layer; rank 64 is the paper's baseline, alpha and dropout are PEFT's."""

    rank: Count = 64
    alpha: Rate = 16.0
    dropout: Annotated[Number, Field(ge=0, lt=1)] = 0.05


class DistillationSettings(Settings):
    """Learning from the tuned, unpruned model too: loss = (1 - weight) · cross-entropy + weight · KL(teacher ‖ student)."""

    weight: Annotated[Number, Field(ge=0, le=1)] = 0.5
    temperature: Rate = 1.0


class SearchSettings(Settings):
    """The learning rates that every arm tries on its own, each for as many steps, judged on held-out rows of the instruction set."""

    learning_rates: Annotated[tuple[Rate, ...], Field(strict=False, min_length=2)]
    steps: Count | None = Field(default=None, description="of one candidate; None: as many as the tuning itself")
    dev_rows: Count = 256

    @field_validator("learning_rates")
    @classmethod
    def _no_duplicates(cls, rates: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(rates)) < len(rates):
            raise ValueError("must name each rate once")
        return rates


class TuningSettings(Settings):
    """The instruction-tuning recipe, the same for every method unless a method's row overrides it."""

    epochs: Rate | None = None
    max_steps: Count | None = Field(default=None, validate_default=True)
    search: SearchSettings | None = Field(default=None, exclude_if=_is_none)
    learning_rate: Rate | None = Field(default=None, validate_default=True)
    batch_size: Count
    micro_batch_size: Count | None = Field(default=None, description="rows per forward pass; None: the whole batch")
    max_length: Annotated[int, Field(ge=8, le=MOST)] = 256
    warmup_steps: CountOrZero = 0
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    weight_decay: Weight = 0.0
    max_grad_norm: Rate = 1.0
    precision: Precision = "fp32"
    gradient_checkpointing: bool = False
    compact: Literal["auto"] | bool = Field(default="auto", exclude_if=_is("auto"), description="auto: on a GPU, where the method can")
    compile: Literal["auto"] | bool = Field(
        default="auto",
        exclude_if=_is("auto"),
        description="the decoder layers; auto: on a GPU, where the steps are many enough to pay for it",
    )
    shard: bool = Field(default=False, exclude_if=_is(False), description="the frozen base over the processes")
    checkpoint_steps: Count = 100
    log_steps: Count = 10
    threads: Threads = 1
    device: Device = "auto"
    lora: LoraSettings = LoraSettings()
    distillation: DistillationSettings | None = Field(default=None, exclude_if=_is_none, description="None: from the data alone")

    @field_validator("max_steps")
    @classmethod
    def _one_length(cls, max_steps: int | None, info: ValidationInfo) -> int | None:
        if "epochs" in info.data and (max_steps is None) == (info.data["epochs"] is None):
            raise ValueError("give exactly one of epochs and max_steps")
        return max_steps

    @field_validator("warmup_steps")
    @classmethod
    def _ends_before_the_run(cls, warmup: int, info: ValidationInfo) -> int:
        search = info.data.get("search")
        for name, steps in (("max_steps", info.data.get("max_steps")), ("search.steps", search.steps if search else None)):
            if steps is not None and warmup > steps:
                raise ValueError(f"must not be more than {name}, which is {steps}")
        return warmup

    @field_validator("learning_rate")
    @classmethod
    def _one_rate(cls, rate: float | None, info: ValidationInfo) -> float | None:
        if "search" in info.data and (rate is None) == (info.data["search"] is None):
            raise ValueError("give exactly one of learning_rate and search")
        return rate

    @field_validator("shard")
    @classmethod
    def _shards_whole_layers(cls, shard: bool, info: ValidationInfo) -> bool:
        if shard and info.data.get("compact") is True:
            raise ValueError("must be false with compact: true, which cuts weights that are whole; leave compact at auto")
        if shard and info.data.get("compile") is True:
            raise ValueError("must be false with compile: true, which compiles layers that hold their weights; leave compile at auto")
        if shard and info.data.get("search") is not None:
            raise ValueError("must be false with search, which is one process: a model that fits it needs no shards; give a learning_rate")
        return shard

    @field_validator("micro_batch_size")
    @classmethod
    def _divides_batch(cls, micro: int | None, info: ValidationInfo) -> int | None:
        batch = info.data.get("batch_size")
        if micro is not None and batch is not None and batch % micro:
            raise ValueError(f"must divide batch_size, which is {batch}")
        return micro

    def steps_for(self, rows: int) -> int:
        """Return how many optimizer steps the recipe takes on so many rows: the last batch of an epoch may be a part of one."""
        return self.max_steps or math.ceil((self.epochs or 1) * math.ceil(rows / self.batch_size))


class PatSettings(Settings):
    """The mask and its operators; docs/method.md says what each is. The ratio comes from the cell."""

    hio_rank: CountOrZero | Literal["dense"] = 200
    operators: Literal["free", "pinned"] = Field(default="free", description="how they start; pinned: an ablation")
    variant: Literal["paper", "release"] = "paper"
    basis: Basis = Field(default="native", exclude_if=_is("native"), description="that the base is rotated into")
    tie: Tie = Field(default="keep", exclude_if=_is("keep"), description="of embedding and head, where they are one matrix, in a new basis")
    mask: Mask = "trained"
    closing: Literal["gradual", "at-once"] = Field(default="gradual", exclude_if=_is("gradual"), description="of a fixed mask")
    readers: Readers = Field(default="plain", exclude_if=_is("plain"), description="of the base; least-squares: of a fixed mask")
    count: Literal["centre", "loss"] | None = Field(default=None, description="None: as the variant does")
    exact_count: bool = Field(default=True, exclude_if=_is(True), description="false: the release's mask keeps what is open in the end")
    milestone_fraction: Annotated[Number, Field(gt=0, le=1)] = 1 / 3
    decide_fraction: Annotated[Number, Field(gt=0, le=1)] | None = Field(default=None, description="None: as the variant does")
    identity_weight: Weight | None = Field(default=None, description="None: as the variant does")
    active_weight: Weight = 1.0
    mask_prior: MaskPrior = Field(default="none", exclude_if=_is("none"), description="the order that a trained mask starts in")
    mask_learning: MaskLearning | None = Field(default=None, exclude_if=_is_none, description="None: as the variant does")
    mask_learning_rate: Rate | Literal["recipe"] | None = Field(
        default=None, description="a step; None: 1 over the milestone step, with Adam 0.5, in the release recipe: as everything else"
    )
    align: Count | Literal["auto"] = "auto"

    @field_validator("variant")
    @classmethod
    def _has_its_own_start(cls, variant: str, info: ValidationInfo) -> str:
        if variant == "release" and info.data.get("operators") == "pinned":
            raise ValueError("must be 'paper' with operators: pinned; the released operators have a start of their own")
        return variant

    @field_validator("exact_count")
    @classmethod
    def _is_held_to(cls, exact: bool, info: ValidationInfo) -> bool:
        if not exact and (info.data.get("variant") != "release" or info.data.get("mask") != "trained"):
            raise ValueError("must be true but for the trained mask of variant: release, which may end with another count")
        return exact

    @field_validator("mask_prior")
    @classmethod
    def _starts_a_trained_mask(cls, prior: str, info: ValidationInfo) -> str:
        if prior != "none" and info.data.get("mask") != "trained":
            raise ValueError("must be 'none' where the mask is fixed; only a trained mask starts from an order and leaves it")
        if prior != "none" and info.data.get("variant") == "release":
            raise ValueError("must be 'none' with variant: release, whose proxy starts at 0")
        return prior

    @field_validator("mask_learning_rate")
    @classmethod
    def _is_adams(cls, rate: float | str | None, info: ValidationInfo) -> float | str | None:
        if rate == "recipe" and info.data.get("mask_learning") != "adam" and info.data.get("variant") != "release":
            raise ValueError("must be a number, or None, where mask_learning is not adam: the recipe's rate is the optimizer's")
        return rate

    @field_validator("mask_learning")
    @classmethod
    def _learns_as_the_variant(cls, learning: str | None, info: ValidationInfo) -> str | None:
        if learning not in (None, "adam") and info.data.get("variant") == "release":
            raise ValueError("must be 'adam' with variant: release")
        return learning

    @field_validator("closing")
    @classmethod
    def _closes_gradually(cls, closing: str, info: ValidationInfo) -> str:
        if closing == "at-once" and info.data.get("mask") == "trained":
            raise ValueError("must be 'gradual' where the mask is trained; a fixed mask may close at once")
        return closing

    @field_validator("readers")
    @classmethod
    def _know_what_is_dropped(cls, readers: Readers, info: ValidationInfo) -> Readers:
        if readers == "least-squares" and info.data.get("mask") == "trained":
            raise ValueError("must be 'plain' where the mask is trained; only a fixed mask knows before tuning what it drops")
        return readers


class PruneSettings(Settings):
    """How a pruner comes to its sizes. `nominal` is the method's own knob; the layers protected are LLM-Pruner's window.

    `tie` is for SliceGPT-1Q alone, as in PatSettings.
    """

    size: Literal["matched", "nominal"] = "matched"
    tie: Tie = Field(default="keep", exclude_if=_is("keep"))
    protect_first: CountOrZero | None = Field(default=None, description="None: 4, fewer in shallow models")
    protect_last: CountOrZero | None = Field(default=None, description="None: 2, fewer in shallow models")


class TuneJob(Settings):
    """Everything `pat tune` needs beside its files, the tuner, the ratio and the seed."""

    tuning: TuningSettings
    pat: PatSettings = PatSettings()


class PretrainSettings(Settings):
    """A base model made from scratch inside the pipeline: its shape and its short training run."""

    family: Literal["llama"] = "llama"
    vocab_size: Annotated[int, Field(ge=64, le=MOST)]
    hidden_size: Count
    layers: Count
    heads: Count
    kv_heads: Count | None = Field(default=None, description="None: as many as heads")
    intermediate_size: Count
    context_length: Annotated[int, Field(ge=8, le=MOST)]
    tie_embeddings: bool = False
    initializer_range: Rate = Field(default=0.02, description="spread of the random weights; narrow models learn sooner from 0.05")
    steps: Count
    batch_size: Count
    learning_rate: Rate
    warmup_steps: CountOrZero = 0
    precision: Precision = "fp32"
    device: Device = "auto"
    threads: Threads = 1
    seed: SeedNumber = 0
    checkpoint_steps: Count = 500
    heldout_fraction: Annotated[Number, Field(ge=0, le=0.5)] = Field(default=0.0, description="of the texts: measured, not learned")
    whole_prompts: bool = Field(default=False, description="one token for each fixed phrase of the prompts: far shorter rows")

    @field_validator("heads")
    @classmethod
    def _divides_hidden(cls, heads: int, info: ValidationInfo) -> int:
        hidden = info.data.get("hidden_size")
        if hidden is not None and (hidden % heads or (hidden // heads) % 2):
            raise ValueError(f"must divide hidden_size ({hidden}) into heads of an even size")
        return heads

    @field_validator("kv_heads")
    @classmethod
    def _divides_heads(cls, kv_heads: int | None, info: ValidationInfo) -> int | None:
        heads = info.data.get("heads")
        if kv_heads is not None and heads is not None and heads % kv_heads:
            raise ValueError(f"must divide heads, which is {heads}")
        return kv_heads

    @field_validator("warmup_steps")
    @classmethod
    def _ends_before_the_run(cls, warmup: int, info: ValidationInfo) -> int:
        steps = info.data.get("steps")
        if steps is not None and warmup > steps:
            raise ValueError(f"must not be more than steps, which is {steps}")
        return warmup


class EvaluationSettings(Settings):
    """How a checkpoint is scored. `limit` keeps the first items of every task, of each of its groups where it has some, and as many
    windows of every text, unless `text_limit` says otherwise; `harness_tasks` are lm-eval's own variants.
    """

    batch_size: Count = 16
    max_new_tokens: Count = 8
    limit: Count | None = None
    text_limit: Count | Literal["all"] | None = Field(default=None, exclude_if=_is_none, description="windows of a text; None: as limit")
    log_likelihood: bool = True
    generate: bool = True
    harness_tasks: tuple[str, ...] = Field(default=(), strict=False)
    perplexity_context: Annotated[int, Field(ge=8, le=MOST)] = 256
    precision: Precision = "fp32"
    device: Device = "auto"
    threads: Threads = 1

    @property
    def windows(self) -> int | None:
        """The windows of a text that are scored; None: all."""
        if self.text_limit == "all":
            return None
        return self.text_limit or self.limit


Factor = str | bool | int | float
"""What a row has of a factor of an ablation; yes and no in YAML are true and false."""


class TableSettings(Settings):
    """The tables an experiment has beside those that every one has; `ablations` gives each its factors, columns that tell rows apart."""

    reference: str | None = Field(default=None, description="the row that others are compared with; None: pat, else the first that prunes")
    accuracy: Literal["table1", "table3"] = Field(default="table1", description="the paper's table of the same experiment")
    ablations: dict[str, Annotated[tuple[str, ...], Field(strict=False, min_length=1)]] = {}


def load(model: type[SettingsT], text_or_path: str | Path) -> SettingsT:
    """Return checked settings from JSON text (it starts with a brace) or a YAML or JSON file.

    Raises UserError that lists every problem, each with its field, value and what is allowed.
    """
    is_text = isinstance(text_or_path, str) and text_or_path.lstrip().startswith("{")
    source = "settings" if is_text else str(text_or_path)
    data = parse_json(str(text_or_path), source, unique_keys=True) if is_text else read_yaml(Path(text_or_path))
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise UserError("\n".join(f"{source}: {problem}" for problem in problems(model, error))) from None


def problems(model: type[BaseModel], error: ValidationError, prefix: Sequence[str] = ()) -> list[str]:
    """Return one line per problem, "field.path: value …: what is allowed", unknown keys with the nearest known one."""
    found: dict[str, list[str]] = {}  # what is wrong -> what would be right, from each branch of a union
    for detail in error.errors():
        wrong, right = _problem(model, detail, prefix)
        found.setdefault(wrong, []).append(right)
    return [wrong + " or ".join(right) for wrong, right in found.items()]


def _problem(model: type[BaseModel], detail: ErrorDetails, prefix: Sequence[str]) -> tuple[str, str]:
    field, known = _locate(model, detail["loc"])
    path = ".".join([*prefix, *field]) or "top level"
    if detail["type"] == "extra_forbidden":
        return f"{path}: unknown key", nearest(field[-1], known)
    if detail["type"] == "missing":
        return f"{path}: is required", ""
    if detail["type"] in ("union_tag_invalid", "union_tag_not_found"):
        return _kind_problem(f"{path}.source", detail)
    message = PLAIN_WORDS.get(detail["type"]) or detail["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    needs_verb = not message.startswith(("must", "give"))
    return f"{path}: {shown(detail['input'])} is not allowed: ", f"must be {message}" if needs_verb else message


def _kind_problem(path: str, detail: ErrorDetails) -> tuple[str, str]:
    """Word the refusal of a union whose members are told apart by `source`."""
    if not isinstance(detail["input"], Mapping):
        return f"{path.removesuffix('.source')}: {shown(detail['input'])} is not allowed: ", "must be a mapping"
    if "source" not in detail["input"]:
        return f"{path}: is required", ""
    given, known = detail["input"]["source"], detail.get("ctx", {})["expected_tags"]
    return f"{path}: {shown(given)} is not allowed: ", f"must be one of {known}"


def shown(value: object) -> str:
    """Return a value as a message shows it: JSON where possible, cut at 60 characters."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean …? allowed: …" for a name that is not among the known ones."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{hint}; allowed: {', '.join(names)}" if names else hint


def _locate(model: type[BaseModel], location: Sequence[int | str]) -> tuple[list[str], list[str]]:
    """Return the field path as the user wrote it and the keys allowed at its last step.

    Pydantic's own path also names the branch of a union that it tried; those steps are not the user's and are left out.
    """
    path: list[str] = []
    candidates: list[Any] = [model]
    known: list[str] = []
    for step in location:
        models = [kind for kind in candidates if isinstance(kind, type) and issubclass(kind, BaseModel)]
        tagged = [kind for kind in models if len(models) > 1 and step in _tags(kind)]
        if tagged:
            candidates = tagged
            continue
        deeper = [inner for kind in candidates for inner in _step(kind, step)]
        if not deeper and not models:
            continue  # a union branch of a plain value or a list ("int", "literal[...]", "tuple[...]")
        known = sorted({name for kind in models for name in kind.model_fields})
        path.append(str(step))
        candidates = deeper
    return path, known


def _tags(model: type[BaseModel]) -> set[object]:
    """Return the values of a model's `source` field, which tell the members of a union apart."""
    field = model.model_fields.get("source")
    return set(get_args(field.annotation)) if field else set()


def _step(kind: Any, step: int | str) -> Iterator[Any]:
    """Yield the types that can stand under `step` of a value of type `kind`."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        if step in kind.model_fields:
            yield from _members(kind.model_fields[str(step)].annotation)
    elif get_origin(kind) in (dict, Mapping):
        yield from _members(get_args(kind)[1])
    elif get_origin(kind) in (list, tuple) and isinstance(step, int):
        yield from _members(get_args(kind)[0])


def _members(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from _members(member)
    elif get_origin(annotation) is Annotated:
        yield from _members(get_args(annotation)[0])
    else:
        yield annotation
