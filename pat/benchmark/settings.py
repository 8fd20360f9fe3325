"""What a benchmark can be told: the shape of a model, and how its inference and its tuning are measured. Knows nothing of torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from pat.config import PatChoices
from pat.errors import SettingError, UserError
from pat.fields import Count, CountOrZero, Device, Number, Precision, Settings, Threads
from pat.mistakes import load, nearest
from pat.settings import PruneSettings
from pat.width import target_width

Ratio = Annotated[Number, Field(gt=0, lt=1)]
Align = Count | Literal["auto"]


class ModelShape(Settings):
    """The sizes of a stock model; its weights are then random, which changes no time and no memory."""

    family: Literal["llama", "mistral", "qwen2", "qwen3", "gemma"] = "llama"
    vocab_size: Count
    hidden_size: Count
    layers: Count
    heads: Count
    kv_heads: Count | None = Field(default=None, description="None: as many as heads")
    head_size: Count | None = Field(default=None, description="None: hidden_size over heads")
    intermediate_size: Count
    tie_embeddings: bool = False

    @field_validator("heads")
    @classmethod
    def _divides_hidden(cls, heads: int, info: ValidationInfo) -> int:
        hidden = info.data.get("hidden_size")
        if hidden is not None and hidden % heads:
            raise ValueError(f"must divide hidden_size, which is {hidden}")
        return heads

    @field_validator("kv_heads")
    @classmethod
    def _divides_heads(cls, kv_heads: int | None, info: ValidationInfo) -> int | None:
        heads = info.data.get("heads")
        if kv_heads is not None and heads is not None and heads % kv_heads:
            raise ValueError(f"must divide heads, which is {heads}")
        return kv_heads


KNOWN_SHAPES = {
    "llama-2-7b": ModelShape(vocab_size=32000, hidden_size=4096, layers=32, heads=32, intermediate_size=11008),
    "llama-2-13b": ModelShape(vocab_size=32000, hidden_size=5120, layers=40, heads=40, intermediate_size=13824),
    "yi-1.5-34b": ModelShape(vocab_size=64000, hidden_size=7168, layers=60, heads=56, kv_heads=8, intermediate_size=20480),
    "gemma-2b": ModelShape(
        family="gemma", vocab_size=256000, hidden_size=2048, layers=18, heads=8, kv_heads=1, head_size=256, intermediate_size=16384,
        tie_embeddings=True,
    ),
    "gemma-7b": ModelShape(
        family="gemma", vocab_size=256000, hidden_size=3072, layers=28, heads=16, head_size=256, intermediate_size=24576,
        tie_embeddings=True,
    ),
}  # fmt: skip
"""Shapes of the paper's models, from their published configs."""


class InferenceBenchmark(Settings):
    """How inference is measured: `repeats` interleaved rounds after `warmup` unmeasured ones, a prompt of `context` random tokens each."""

    ratios: Annotated[tuple[Ratio, ...], Field(strict=False)] = ()
    widths: Annotated[tuple[Count, ...], Field(strict=False)] = ()
    align: Align = "auto"
    batch_sizes: Annotated[tuple[Count, ...], Field(strict=False, min_length=1)] = (1, 32, 128)
    context: Count = 128
    new_tokens: CountOrZero = Field(default=16, description="0: the first token alone is timed")
    repeats: Count = 5
    warmup: Count = 3
    precision: Precision = "bf16"
    attention: Literal["sdpa", "eager"] = "sdpa"
    compile: bool = False
    device: Device = "auto"
    threads: Threads = 1


class TuningBenchmark(Settings):
    """How tuning is measured: LoRA on the unpruned model, then PAT before and after the milestone, `rounds` times in turn.

    `compile` "both" measures all of it eager and compiled, in one run.
    """

    ratio: Ratio = 0.25
    batch_size: Count = 16
    length: Annotated[int, Field(ge=8)] = 256
    shortest: Annotated[int, Field(ge=8)] | None = Field(
        default=None, description="batches are of lengths from this to `length`; None: all of that"
    )
    steps: Count = 10
    warmup: Annotated[int, Field(ge=2)] = 3
    rounds: Count = 2
    lora_rank: Count = 64
    pat_lora_rank: Count = 20
    pat: PatChoices = PatChoices()
    dropout: Annotated[Number, Field(ge=0, lt=1)] = 0.05
    precision: Precision = "bf16"
    gradient_checkpointing: bool = False
    compile: Literal["both"] | bool = False
    uncompacted: bool = Field(default=True, description="PAT after the milestone is measured without compaction too")
    device: Device = "auto"
    threads: Threads = 1

    @field_validator("shortest")
    @classmethod
    def _reaches_length(cls, shortest: int | None, info: ValidationInfo) -> int | None:
        length = info.data.get("length")
        if shortest is not None and length is not None and shortest > length:
            raise ValueError(f"must not be more than length, which is {length}")
        return shortest


class EvaluationBenchmark(Settings):
    """How evaluation is measured: `items` of each task, in `rounds` rounds, one by one with lm-eval's `hf` and in batches with ours."""

    items: Count = 11
    batch_sizes: Annotated[tuple[Count, ...], Field(strict=False, min_length=1)] = (16, 64)
    max_new_tokens: Count = 8
    rounds: Count = 2
    precision: Precision = "bf16"
    attention: Literal["sdpa", "eager"] = "sdpa"
    device: Device = "auto"
    threads: Threads = 1


class PruneBenchmark(Settings):
    """How a pruner is measured; `prune` is how it comes to its sizes."""

    prune: PruneSettings = PruneSettings()
    align: Align = "auto"
    calibration_tokens: Count | None = Field(default=None, description="None: as many as the pruner's paper takes")
    device: Device = "auto"
    threads: Threads | None = Field(default=None, description="None: as many as torch takes, the cores")


class MergeBenchmark(Settings):
    """How the merge is measured: what the random adapter holds."""

    ratio: Ratio = 0.25
    hio_rank: CountOrZero = 200
    lora_rank: Count = 20
    align: Align = "auto"
    device: Device = "auto"
    threads: Threads | None = Field(default=None, description="None: as many as torch takes, the cores")


class BenchmarkSettings(Settings):
    """What an experiment measures: shapes by name (nothing behind a known shape's name), and how."""

    shapes: Annotated[dict[str, ModelShape | None], Field(min_length=1)]
    inference: InferenceBenchmark | None = None
    tuning: TuningBenchmark | None = None

    def shape(self, name: str) -> ModelShape:
        """Return a shape's sizes; a name alone stands for the known shape."""
        return self.shapes[name] or KNOWN_SHAPES[name]


def runtime_of(*, compiled: bool) -> str:
    """Return how a benchmark's models run, in a word."""
    return "compiled" if compiled else "eager"


def widths_of(shape: ModelShape, settings: InferenceBenchmark) -> list[int]:
    """Return the narrower widths that ratios and widths ask for, widest first, each once."""
    for width in settings.widths:
        if width >= shape.hidden_size or width % shape.heads:
            raise UserError(
                f"settings: widths: {width} is not allowed: must be a multiple of {shape.heads} heads below {shape.hidden_size}"
            )
    try:
        rounded = [target_width(shape.hidden_size, shape.heads, ratio, settings.align) for ratio in settings.ratios]
    except SettingError as error:
        raise UserError(f"settings: ratios: {error}") from None
    widths = sorted({*settings.widths, *rounded}, reverse=True)
    if not widths:
        raise UserError("settings: give at least one of ratios and widths: a benchmark compares the unpruned model with narrower ones")
    return widths


def shape_of(text: str) -> ModelShape:
    """Return a known shape by its name, or the one in JSON text or a YAML or JSON file. Raises UserError on anything else."""
    if text in KNOWN_SHAPES:
        return KNOWN_SHAPES[text]
    if not text.lstrip().startswith("{") and not text.endswith((".yaml", ".yml", ".json")):
        raise UserError(f"--shape {text!r}: is neither a known shape nor JSON nor a .yaml or .json file{nearest(text, KNOWN_SHAPES)}")
    return load(ModelShape, text)
