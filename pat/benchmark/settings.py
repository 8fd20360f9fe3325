"""The settings of a benchmark: the shape of a model, and how its inference and its tuning are measured. Knows nothing of torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from pat.errors import UserError
from pat.families.known import ARCHITECTURE, ModelType
from pat.settings.agreement import at_most, divides
from pat.settings.budget import Asked
from pat.settings.config import PatChoices
from pat.settings.fields import Align, Count, CountOrZero, Device, Number, Precision, Settings, Threads
from pat.settings.jobs import RECOMPUTED, PruneSettings, Recomputed
from pat.settings.mistakes import load, nearest

CHECKPOINT_BYTES = 2
"""Of a parameter of the random checkpoints that jobs on folders are measured with (random_checkpoint.py)."""
ExportFormat = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "int8", "int4", "fp8"]


class ModelShape(Settings):
    """The sizes of a stock model; its weights are then random, which changes no time and no memory."""

    family: ModelType = Field(default="llama", description=ARCHITECTURE)
    vocab_size: Count = Field(description="tokens of the vocabulary")
    hidden_size: Count = Field(description="width of the residual stream")
    layers: Count = Field(description="decoder layers")
    heads: Count = Field(description="attention heads; has to divide `hidden_size`")
    kv_heads: Count | None = Field(default=None, description="key and value heads; left out: as many as `heads`")
    head_size: Count | None = Field(default=None, description="width of a head; left out: `hidden_size` over `heads`")
    intermediate_size: Count = Field(description="neurons of a feed-forward block")
    tie_embeddings: bool = Field(default=False, description="one matrix for embedding and head")

    _divides_hidden = field_validator("heads")(divides("hidden_size"))
    _divides_heads = field_validator("kv_heads")(divides("heads"))


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

    ratios: Annotated[tuple[Asked, ...], Field(strict=False)] = Field(
        default=(), description="ratios of the narrower models, or budgets; give this or `widths`, or both"
    )
    widths: Annotated[tuple[Count, ...], Field(strict=False)] = Field(default=(), description="hidden sizes of the narrower models")
    align: Align = Field(default="auto", description="as in `pat`, for `ratios`")
    batch_sizes: Annotated[tuple[Count, ...], Field(strict=False, min_length=1)] = Field(
        default=(1, 32, 128), description="prompts at once"
    )
    context: Count = Field(default=128, description="tokens of a prompt")
    new_tokens: CountOrZero = Field(default=16, description="tokens decoded; 0: the first token alone, without a cache")
    repeats: Count = Field(default=5, description="measured rounds, the models in turn")
    warmup: Count = Field(default=3, description="rounds before, not measured")
    precision: Precision = "bf16"
    attention: Literal["sdpa", "eager"] = Field(default="sdpa", description="implementation of attention")
    compile: bool = Field(default=False, description="compile the models; a pass is then one CUDA graph")
    device: Device = "auto"
    threads: Threads = 1


class TuningBenchmark(Settings):
    """How tuning is measured: LoRA on the unpruned model, then PAT before and after the milestone, `rounds` times in turn.

    `compile` "both" measures all of it eager and compiled, in one run.
    """

    ratio: Asked = Field(default=0.25, description="share of the hidden size to prune, or a budget")
    batch_size: Count = Field(default=16, description="rows per step")
    length: Annotated[int, Field(ge=8)] = Field(default=256, description="tokens of a row")
    shortest: Annotated[int, Field(ge=8)] | None = Field(
        default=None, description="batches have lengths from this to `length`; left out: all have `length`"
    )
    steps: Count = Field(default=10, description="measured steps of a phase")
    warmup: Annotated[int, Field(ge=2)] = Field(default=3, description="steps before, not measured")
    rounds: Count = Field(default=2, description="rounds, the phases in turn")
    lora_rank: Count = Field(default=64, description="rank of LoRA alone")
    pat_lora_rank: Count = Field(default=20, description="rank of PAT's LoRA")
    pat: PatChoices = Field(default=PatChoices(), description="the mask and its operators; `milestone_fraction` weighs the phases")
    dropout: Annotated[Number, Field(ge=0, lt=1)] = Field(default=0.05, description="LoRA's dropout")
    precision: Precision = "bf16"
    gradient_checkpointing: Recomputed = Field(default=False, description=RECOMPUTED)
    compile: Literal["both"] | bool = Field(default=False, description="compile the decoder layers; both: all of it eager and compiled")
    uncompacted: bool = Field(default=True, description="measure PAT after the milestone without compaction too")
    device: Device = "auto"
    threads: Threads = 1

    _reaches_length = field_validator("shortest")(at_most("length"))


class EvaluationBenchmark(Settings):
    """How evaluation is measured: `items` of each task, in `rounds` rounds, one by one with lm-eval's `hf` and in batches with ours."""

    items: Count = Field(default=11, description="items of each task")
    batch_sizes: Annotated[tuple[Count, ...], Field(strict=False, min_length=1)] = Field(default=(16, 64), description="prompts at once")
    max_new_tokens: Count = Field(default=8, description="tokens of an answer at most")
    rounds: Count = Field(default=2, description="measured rounds")
    precision: Precision = "bf16"
    attention: Literal["sdpa", "eager"] = Field(default="sdpa", description="implementation of attention")
    device: Device = "auto"
    threads: Threads = 1


class PruneBenchmark(Settings):
    """How a pruner is measured; `prune` is how it comes to its sizes."""

    prune: PruneSettings = Field(default=PruneSettings(), description="how the pruner comes to its sizes")
    align: Align = Field(default="auto", description="as in `pat`")
    calibration_tokens: Count | None = Field(default=None, description="tokens measured on; left out: as many as the pruner's paper takes")
    device: Device = "auto"
    threads: Threads | None = Field(default=None, description="threads that torch works with; left out: as many as cores")


class MergeBenchmark(Settings):
    """How the merge is measured: what the random adapter holds."""

    ratio: Asked = Field(default=0.25, description="share of the hidden size to prune, or a budget")
    hio_rank: CountOrZero = Field(default=200, description="rank of the random adapter's operators")
    lora_rank: Count = Field(default=20, description="rank of its LoRA")
    align: Align = Field(default="auto", description="as in `pat`")
    device: Device = "auto"
    threads: Threads | None = Field(default=None, description="threads that torch works with; left out: as many as cores")


class ExportBenchmark(Settings):
    """What formats are measured, and how: perplexity over windows of `context` tokens."""

    formats: Annotated[tuple[ExportFormat, ...], Field(strict=False, min_length=1)] = Field(
        default=("f16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "int8", "int4"), description="types of GGUF files, and int8, int4, fp8"
    )
    context: Count = Field(default=1024, description="tokens of a window; at most what the model reads")
    batch_size: Count = Field(default=4, description="windows at once")
    documents: Count | None = Field(default=None, description="first documents of each text, whole; left out: all")
    device: Device = "auto"
    threads: Threads = 1


def runtime_of(*, compiled: bool) -> str:
    """Return how a benchmark's models run, in a word."""
    return "compiled" if compiled else "eager"


def shape_of(text: str) -> ModelShape:
    """Return a known shape by its name, or the one in JSON text or a YAML or JSON file. Raises UserError on anything else."""
    if text in KNOWN_SHAPES:
        return KNOWN_SHAPES[text]
    if not text.lstrip().startswith("{") and not text.endswith((".yaml", ".yml", ".json")):
        raise UserError(f"--shape {text!r}: is neither a known shape nor JSON nor a .yaml or .json file{nearest(text, KNOWN_SHAPES)}")
    return load(ModelShape, text)
