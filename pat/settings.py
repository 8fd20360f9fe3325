"""What a run can be told: one checked, frozen model per component. The mask's is in config.py.

Owns field names, ranges and defaults. Knows nothing of experiments, paths or torch.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from pat.config import PatChoices, Tie
from pat.fields import MOST, Count, CountOrZero, Device, Number, Precision, Rate, SeedNumber, Settings, Threads, Weight, equals, is_none


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
    search: SearchSettings | None = Field(default=None, exclude_if=is_none)
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
    compact: Literal["auto"] | bool = Field(default="auto", exclude_if=equals("auto"), description="auto: on a GPU, where the method can")
    compile: Literal["auto"] | bool = Field(
        default="auto",
        exclude_if=equals("auto"),
        description="the decoder layers; auto: on a GPU, where the steps are many enough to pay for it",
    )
    shard: bool = Field(default=False, exclude_if=equals(False), description="the frozen base over the processes")
    checkpoint_steps: Count = 100
    log_steps: Count = 10
    threads: Threads = 1
    device: Device = "auto"
    lora: LoraSettings = LoraSettings()
    distillation: DistillationSettings | None = Field(default=None, exclude_if=is_none, description="None: from the data alone")

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


class PruneSettings(Settings):
    """How a pruner comes to its sizes. `nominal` is the method's own knob; the layers protected are LLM-Pruner's window.

    `tie` is for SliceGPT-1Q alone, as in PatChoices.
    """

    size: Literal["matched", "nominal"] = "matched"
    tie: Tie = Field(default="keep", exclude_if=equals("keep"))
    protect_first: CountOrZero | None = Field(default=None, description="None: 4, fewer in shallow models")
    protect_last: CountOrZero | None = Field(default=None, description="None: 2, fewer in shallow models")


class TuneJob(Settings):
    """Everything `pat tune` needs beside its files, the tuner, the ratio and the seed."""

    tuning: TuningSettings
    pat: PatChoices = PatChoices()


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
    text_limit: Count | Literal["all"] | None = Field(default=None, exclude_if=is_none, description="windows of a text; None: as limit")
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
