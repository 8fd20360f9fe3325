"""The settings of a run: one checked, frozen model per component. The mask's is in config.py.

Owns field names, ranges and defaults. Knows nothing of experiments, paths or torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from pat.families.known import ARCHITECTURE, ModelType
from pat.settings.agreement import at_most, divides, each_once, exactly_one_of
from pat.settings.config import PatChoices, Tie
from pat.settings.fields import Count, CountOrZero, Device, Number, Precision, Rate, SeedNumber, Settings, Threads, Weight, equals, is_none
from pat.settings.limits import MOST

Share = Annotated[Number, Field(ge=0, le=1)]
WHOLE = (0.0, 1.0)
Reporter = Literal["tensorboard", "wandb", "mlflow"]
"""The trackers by the Trainer's names for them."""
Recomputed = Literal["feed-forward"] | bool
RECOMPUTED = (
    "compute activations again in the backward pass; feed-forward: those of each layer's feed-forward block alone, which about halves "
    "their memory; true: those of whole layers, for less memory yet and more time"
)


class LoraSettings(Settings):
    """Low-rank adapters on every linear layer; rank 64 is the paper's baseline, alpha and dropout are PEFT's."""

    rank: Count = Field(default=64, description="rank of the adapters")
    alpha: Rate = Field(default=16.0, description="LoRA's alpha; an update is multiplied by alpha / rank")
    dropout: Annotated[Number, Field(ge=0, lt=1)] = Field(
        default=0.05, description="share of an adapter's inputs that is dropped in training"
    )


class DistillationSettings(Settings):
    """Learning from the tuned, unpruned model too: loss = (1 - weight) · cross-entropy + weight · KL(teacher ‖ student)."""

    weight: Annotated[Number, Field(ge=0, le=1)] = Field(default=0.5, description="share of the loss that comes from the teacher")
    temperature: Rate = Field(default=1.0, description="both distributions are softened by it")


class SearchSettings(Settings):
    """The learning rates that every arm tries on its own, each for as many steps, judged on held-out rows of the instruction set."""

    learning_rates: Annotated[tuple[Rate, ...], Field(strict=False, min_length=2), AfterValidator(each_once)] = Field(
        description="the rates that every row and ratio tries"
    )
    steps: Count | None = Field(
        default=None,
        description="optimizer steps of one candidate; left out: as many as the tuning itself, which alone tells what is best at its end",
    )
    dev_rows: Count = Field(default=256, description="rows of the instruction set that are kept for judging")


def end_of(rate: float, tried: Sequence[float]) -> str | None:
    """Return which end of the rates that were tried one is, `smallest` or `largest`; None where it lies between."""
    return {min(tried): "smallest", max(tried): "largest"}.get(rate)


class TuningSettings(Settings):
    """The instruction-tuning recipe, the same for every method unless a method's row overrides it."""

    epochs: Rate | None = Field(default=None, description="passes over the instruction set; give this or `max_steps`")
    max_steps: Count | None = Field(default=None, validate_default=True, description="optimizer steps; give this or `epochs`")
    search: SearchSettings | None = Field(
        default=None, exclude_if=is_none, description="search the learning rate; give this or `learning_rate`"
    )
    learning_rate: Rate | None = Field(
        default=None, validate_default=True, description="highest rate of the schedule; give this or `search`"
    )
    batch_size: Count = Field(description="rows per optimizer step, of all devices together")
    micro_batch_size: Literal["auto"] | Count | None = Field(
        default=None,
        description="rows per forward pass; has to divide `batch_size`; auto: as many as `memory_gib`, or else the GPU's free memory, "
        "holds; left out: the whole batch",
    )
    memory_gib: Rate | None = Field(
        default=None, exclude_if=is_none, description="memory that a tuning may take, with `micro_batch_size: auto`"
    )
    max_length: Annotated[int, Field(ge=8, le=MOST)] = Field(default=256, description="tokens of a row; longer answers are cut")
    warmup_steps: CountOrZero = Field(default=0, description="steps in which the rate rises from zero")
    schedule: Literal["cosine", "linear", "constant"] = Field(default="cosine", description="course of the rate after the warm-up")
    weight_decay: Weight = Field(default=0.0, description="decoupled weight decay of AdamW")
    max_grad_norm: Rate = Field(default=1.0, description="norm to which the gradient is clipped")
    precision: Precision = "fp32"
    gradient_checkpointing: Recomputed = Field(default=False, description=RECOMPUTED)
    compact: Literal["auto"] | bool = Field(
        default="auto",
        exclude_if=equals("auto"),
        description="cut the frozen weights to the living channels once the mask is closed; auto: on a GPU, where it can be and pays",
    )
    compile: Literal["auto"] | bool = Field(
        default="auto",
        exclude_if=equals("auto"),
        description="compile the decoder layers; auto: on a GPU, where the steps are many enough to pay for it",
    )
    shard: bool = Field(
        default=False, exclude_if=equals(False), description="lay the frozen base in shards over the GPUs of `resources.tune.gpu`"
    )
    checkpoint_steps: Count = Field(default=100, description="steps between two checkpoints; a killed job loses at most these")
    log_steps: Count = Field(default=10, description="steps between two entries of the log")
    data_order: CountOrZero = Field(
        default=0,
        exclude_if=equals(0),
        description="which of a seed's orders of the rows is taken; what follows a tuning of the same rows takes another, as the second "
        "part of FT→P→FT does by itself",
    )
    share: Annotated[tuple[Share, ...], Field(strict=False, min_length=2, max_length=2)] = Field(
        default=WHOLE,
        exclude_if=equals(WHOLE),
        description="which of the steps that `epochs` come to are made, as shares of them; FT→P→FT gives each of its parts its own",
    )
    report_to: Annotated[tuple[Reporter, ...], Field(strict=False)] = Field(
        default=(),
        exclude_if=equals(()),
        description="trackers that get the log too while a tuning runs, each by its own package; W&B sends it over the network, unless "
        "WANDB_MODE is offline",
    )
    threads: Threads = 1
    device: Device = "auto"
    lora: LoraSettings = Field(default=LoraSettings(), description="the adapters")
    distillation: DistillationSettings | None = Field(
        default=None, exclude_if=is_none, description="learn from the tuned, unpruned model too; left out: from the data alone"
    )

    _one_length = field_validator("max_steps")(exactly_one_of("epochs", "max_steps"))
    _one_rate = field_validator("learning_rate")(exactly_one_of("learning_rate", "search"))
    _divides_batch = field_validator("micro_batch_size")(divides("batch_size"))

    @field_validator("warmup_steps")
    @classmethod
    def _ends_before_the_run(cls, warmup: int, info: ValidationInfo) -> int:
        search = info.data.get("search")
        for name, steps in (("max_steps", info.data.get("max_steps")), ("search.steps", search.steps if search else None)):
            if steps is not None and warmup > steps:
                raise ValueError(f"must not be more than {name}, which is {steps}")
        return warmup

    @field_validator("share")
    @classmethod
    def _is_of_passes(cls, share: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        if share[0] >= share[1]:
            raise ValueError("must begin before it ends, such as [0.5, 1]")
        if share != WHOLE and info.data.get("max_steps") is not None:
            raise ValueError("must be left out with max_steps, which are then the steps that are made")
        return share

    @field_validator("shard")
    @classmethod
    def _shards_whole_layers(cls, shard: bool, info: ValidationInfo) -> bool:
        if shard and info.data.get("compact") is True:
            raise ValueError("must be false with compact: true, which cuts weights that are whole; leave compact at auto")
        if shard and info.data.get("micro_batch_size") == "auto":
            raise ValueError("must be false with micro_batch_size: auto, which counts on a whole model; give the rows as a number")
        if shard and info.data.get("compile") is True:
            raise ValueError("must be false with compile: true, which compiles layers that hold their weights; leave compile at auto")
        if shard and info.data.get("search") is not None:
            raise ValueError("must be false with search, which is one process: a model that fits it needs no shards; give a learning_rate")
        return shard

    @field_validator("memory_gib")
    @classmethod
    def _bounds_what_is_open(cls, memory: float | None, info: ValidationInfo) -> float | None:
        if memory is not None and info.data.get("micro_batch_size", "auto") != "auto":
            raise ValueError("must be left out unless micro_batch_size is auto, which alone fits rows to a memory")
        return memory

    @property
    def recomputes_layers(self) -> bool:
        """Whether whole decoder layers are computed again in the backward pass."""
        return self.gradient_checkpointing is True

    @property
    def recomputes_feed_forward(self) -> bool:
        """Whether each layer's feed-forward block is, and it alone."""
        return self.gradient_checkpointing == "feed-forward"

    @property
    def known_micro_batch_size(self) -> int | None:
        """Rows per forward pass; None where it is the whole batch, or what the memory holds."""
        return None if self.micro_batch_size == "auto" else self.micro_batch_size

    def steps_for(self, rows: int) -> int:
        """Return how many optimizer steps the recipe takes on so many rows: the last batch of an epoch may be a part of one."""
        whole = self.max_steps or math.ceil((self.epochs or 1) * math.ceil(rows / self.batch_size))
        first, end = (round(share * whole) for share in self.share)
        return end - first


class PruneSettings(Settings):
    """How a pruner comes to its sizes. `nominal` is the method's own knob; the layers protected are LLM-Pruner's window.

    `tie` and `basis` are for SliceGPT-1Q alone, as in PatChoices.
    """

    size: Literal["matched", "nominal"] = Field(
        default="matched", description="matched: the ratio is the share of all parameters that goes; nominal: it is the method's own size"
    )
    tie: Tie = Field(
        default="keep",
        exclude_if=equals("keep"),
        description="slicegpt-1q alone: whether embedding and head stay one matrix, where they are one",
    )
    basis: Literal["pca", "gradient"] | None = Field(
        default=None,
        exclude_if=is_none,
        description="slicegpt-1q alone: whose leading directions stay, principal components or PAT-G's; left out: pca",
    )
    writers: Literal["plain", "refitted"] | None = Field(
        default=None,
        exclude_if=is_none,
        description="refitted: after the cut, what writes to the stream is fitted to the whole model, where that helps on held-out text; "
        "left out: refitted for layers-and-neurons, else plain",
    )
    writer_tokens: Count | None = Field(
        default=None,
        exclude_if=is_none,
        description="tokens of calibration text that writers are refitted to, an eighth of them held out; the machine's memory has to hold "
        "their streams; left out: 256 for each input of the widest write",
    )
    protect_first: CountOrZero | None = Field(
        default=None, description="first layers that llm-pruner leaves whole; left out: 4, fewer in shallow models"
    )
    protect_last: CountOrZero | None = Field(
        default=None, description="last layers that llm-pruner leaves whole; left out: 2, fewer in shallow models"
    )


class RefitSettings(Settings):
    """How readers are refitted before tuning, where a row's `pat.readers` or its method wants that."""

    ridges: Annotated[tuple[Rate, ...], Field(strict=False, min_length=1), AfterValidator(each_once)] | None = Field(
        default=None,
        exclude_if=is_none,
        description="the ridges that are tried, of which held-out text chooses; memory holds a fit of each; left out: 1e-6 and 1e-3",
    )


class TuneJob(Settings):
    """Everything `pat tune` needs beside its files, the tuner, the ratio and the seed."""

    tuning: TuningSettings = Field(description="the recipe")
    pat: PatChoices = Field(default=PatChoices(), description="the mask and its operators")


class PretrainSettings(Settings):
    """A base model made from scratch inside the pipeline: its shape and its short training run."""

    family: ModelType = Field(default="llama", description=ARCHITECTURE)
    vocab_size: Annotated[int, Field(ge=64, le=MOST)] = Field(description="tokens of the tokenizer that is trained for it")
    hidden_size: Count = Field(description="width of the residual stream")
    layers: Count = Field(description="decoder layers")
    heads: Count = Field(description="attention heads; has to divide `hidden_size` into heads of an even size")
    kv_heads: Count | None = Field(default=None, description="key and value heads; has to divide `heads`; left out: as many as `heads`")
    intermediate_size: Count = Field(description="neurons of a feed-forward block")
    context_length: Annotated[int, Field(ge=8, le=MOST)] = Field(description="tokens of a training row, and the model's context")
    tie_embeddings: bool = Field(default=False, description="one matrix for embedding and head")
    initializer_range: Rate = Field(default=0.02, description="spread of the random weights; narrow models learn sooner from 0.05")
    steps: Count = Field(description="optimizer steps")
    batch_size: Count = Field(description="rows per optimizer step")
    learning_rate: Rate = Field(description="highest rate of the cosine schedule")
    warmup_steps: CountOrZero = Field(default=0, description="steps in which the rate rises from zero")
    precision: Precision = "fp32"
    device: Device = "auto"
    threads: Threads = 1
    seed: SeedNumber = Field(default=0, description="seed of weights and order")
    checkpoint_steps: Count = Field(default=500, description="steps between two checkpoints")
    heldout_fraction: Annotated[Number, Field(ge=0, le=0.5)] = Field(
        default=0.0, description="share of the texts that is measured and not learned"
    )
    whole_prompts: bool = Field(
        default=False, description="one token for each fixed phrase of the prompts: far shorter rows for tiny models"
    )

    @field_validator("heads")
    @classmethod
    def _divides_hidden(cls, heads: int, info: ValidationInfo) -> int:
        hidden = info.data.get("hidden_size")
        if hidden is not None and (hidden % heads or (hidden // heads) % 2):
            raise ValueError(f"must divide hidden_size ({hidden}) into heads of an even size")
        return heads

    _divides_heads = field_validator("kv_heads")(divides("heads"))
    _ends_before_the_run = field_validator("warmup_steps")(at_most("steps"))


class EvaluationSettings(Settings):
    """How a checkpoint is scored. `limit` keeps the first items of every task, of each of its groups where it has some, and as many
    windows of every text, unless `group_limit` and `text_limit` say otherwise; `harness_tasks` are lm-eval's own variants.
    """

    batch_size: Count = Field(default=16, description="prompts per forward pass")
    max_new_tokens: Count = Field(default=8, description="tokens of a generated answer at most")
    limit: Count | None = Field(
        default=None, description="first items of every task, or of each of its groups, and windows of every text; left out: all"
    )
    group_limit: Count | None = Field(
        default=None, exclude_if=is_none, description="items of each group, for tasks that have some; left out: as `limit`"
    )
    text_limit: Count | Literal["all"] | None = Field(
        default=None, exclude_if=is_none, description="windows of every text; left out: as `limit`"
    )
    log_likelihood: bool = Field(default=True, description="score by log-likelihood")
    generate: bool = Field(default=True, description="score generated answers by the first capital letter")
    harness_tasks: tuple[str, ...] = Field(
        default=(), strict=False, description="lm-eval's own variants of tasks by name, in a table beside those of ours"
    )
    perplexity_context: Annotated[int, Field(ge=8, le=MOST)] = Field(default=256, description="tokens of a window of text")
    precision: Precision = "fp32"
    device: Device = "auto"
    threads: Threads = 1

    @property
    def scores_tasks(self) -> bool:
        """Whether tasks are scored in any way."""
        return self.generate or self.log_likelihood

    @property
    def windows(self) -> int | None:
        """The windows of a text that are scored; None: all."""
        if self.text_limit == "all":
            return None
        return self.text_limit or self.limit
