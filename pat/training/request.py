"""A tuning as it was asked for: its arguments, once, for the verbs, the search and every feature that has a say in it.

A feature tells in its own module why it is not for a request: `reason_not_to(request)`. No torch until something of the model is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pat.errors import UserError
from pat.io.provenance import described
from pat.machine.threads import tokenizing_with
from pat.settings.config import PatConfig
from pat.settings.jobs import TuneJob, TuningSettings
from pat.settings.tuners import MASKED, MASKED_NAMES, TUNERS, WITH_DORA
from pat.training.reporters import check_reporters

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from pat.data.instructions import Instructions


@dataclass(frozen=True, kw_only=True)
class Arm:
    """What is trained, on whatever model: a tuner at a ratio, with a seed, and its settings."""

    tuner: str
    ratio: float
    seed: int
    job: TuneJob

    @property
    def masked(self) -> bool:
        """Whether the tuner prunes while it tunes."""
        return self.tuner in MASKED

    @property
    def with_dora(self) -> bool:
        """Whether the tuner's low-rank adapters are DoRA's."""
        return self.tuner in WITH_DORA

    @property
    def tuning(self) -> TuningSettings:
        """The recipe."""
        return self.job.tuning

    @property
    def pat_config(self) -> PatConfig:
        """The mask's choices, completed by the arm's ratio and seed and by the recipe's LoRA."""
        lora = self.tuning.lora
        return PatConfig(
            pruning_ratio=self.ratio,
            lora_rank=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            use_dora=self.with_dora,
            seed=self.seed,
            **dict(self.job.pat),
        )

    @property
    def settings(self) -> dict[str, object]:
        """What a record says that was asked for, and hashes."""
        return self.job.model_dump(mode="json") | {"tuner": self.tuner, "ratio": self.ratio}

    def check(self) -> None:
        """Raise UserError on an unknown tuner, on a ratio that cannot be or that the tuner does not prune at, and on a missing tracker."""
        if self.tuner not in TUNERS:
            raise UserError(f"--tuner {self.tuner!r}: must be one of {', '.join(TUNERS)}")
        if not 0.0 <= self.ratio < 1.0:
            raise UserError(f"--ratio {self.ratio}: must lie in [0, 1)")
        if self.ratio and not self.masked:
            raise UserError(f"--ratio {self.ratio} with --tuner {self.tuner}: only {MASKED_NAMES} prune while they tune; use 0")
        check_reporters(self.tuning.report_to)


@dataclass(frozen=True, kw_only=True)
class TuningRequest(Arm):
    """An arm on a base model and an instruction set. `teacher` is the stock model to distil from, where the settings say so; `columns`
    says what our fields of a row are called in the file, `datasets` which data sets of the hub its rows are from, `rate_from` which
    search has found the learning rate, `encoded` what `pat encode` has made of the rows. `given_rows` gives them where the caller has them.

    Checkpoints lie in `run_dir` until the job is done, and its result at `out`, which with `force` takes the place of whatever is there.
    What is read of the model and of the rows is read once, when it is first asked for.
    """

    base: Path
    data: Path
    run_dir: Path
    out: Path
    teacher: Path | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    datasets: tuple[str, ...] = ()
    rate_from: Path | None = None
    encoded: Path | None = None
    given_rows: Callable[[], Instructions] | None = None
    force: bool = False

    @cached_property
    def device(self) -> str:
        """Where the job runs, "cpu" or "cuda". Raises UserError where it cannot run there."""
        from pat.machine.device import resolve_device

        return resolve_device(self.tuning.device)

    @property
    def sharded(self) -> bool:
        """Whether the base lies in shards: where the settings say so and there are several processes."""
        from pat.models import sharding

        return sharding.reason_not_to(self) is None

    @cached_property
    def model_config(self) -> Any:
        """The base's config."""
        from pat.checkpoints import checkpoint

        return checkpoint.load_config(self.base)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The base's tokenizer."""
        from pat.checkpoints import checkpoint

        return checkpoint.load_tokenizer(self.base)

    @cached_property
    def rows(self) -> Instructions:
        """The instruction set as the model reads it. Raises UserError where it is broken, or nothing of it can be learned."""
        from pat.data.encoded import read_encoded
        from pat.data.instructions import Instructions

        if self.given_rows is not None:
            return self.given_rows()
        if self.encoded is not None:
            vocabulary = self.model_config.vocab_size
            return read_encoded(self.encoded, self.data, self.tokenizer, vocabulary, self.tuning.max_length, self.columns)
        with tokenizing_with(self.tuning.threads):
            return Instructions(self.data, self.tokenizer, self.tuning.max_length, self.columns)

    @property
    def settings(self) -> dict[str, object]:
        """What a record says that was asked for; columns where some were named."""
        return super().settings | ({"columns": dict(self.columns)} if self.columns else {})

    @property
    def steps(self) -> int:
        """How many optimizer steps the tuning takes."""
        return self.tuning.max_steps or self.tuning.steps_for(len(self.rows))

    @property
    def label(self) -> str:
        """What the tuning is called on the terminal."""
        return f"tune {self.tuner} ratio {self.ratio:g} seed {self.seed}"

    def inputs(self) -> dict[str, dict[str, object]]:
        """Return what a record says of the files that are read."""
        given = {"base": self.base, "data": self.data, "teacher": self.teacher, "rate": self.rate_from, "encoded": self.encoded}
        return {name: described(path) for name, path in given.items() if path is not None}
