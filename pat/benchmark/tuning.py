"""`pat benchmark tune`: what a step of LoRA and of PAT costs, before and after the milestone, on the trainer that `pat tune` uses.

PAT after the milestone is measured compacted and, unless told otherwise, masked to the end; each arm eager, compiled or both.

Random weights of a shape and random tokens. The arms take turns, `rounds` times, each on a fresh model, so that their memory is
their own and a drift of the machine shows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from itertools import cycle, pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments, set_seed

from pat.benchmark import machine
from pat.benchmark.candidates import DTYPES, parameter_count, random_model, stock_config
from pat.benchmark.settings import ModelShape, TuningBenchmark
from pat.benchmark.tuning_record import CLOSED, COMPACTED, LORA, MASKED, Phase, phase_record, schedule_records, summary
from pat.benchmark.widths import narrowed_at, ratio_of, tell_budgets
from pat.errors import UserError
from pat.families.known import family_named
from pat.io import artefacts
from pat.io.marks import KINDS, check_replaceable
from pat.io.progress import Progress, say
from pat.io.provenance import provenance
from pat.machine.device import resolve_device
from pat.machine.out_of_memory import lacks_memory
from pat.machine.threads import threads_given_back
from pat.method.callback import PatCallback
from pat.method.model import PatModel
from pat.models.attention import rely_on_causal_kernel
from pat.models.compiled import compile_layers
from pat.models.recomputed import recompute_feed_forward
from pat.settings.config import PatChoices
from pat.settings.fields import BYTES
from pat.settings.jobs import LoraSettings, TuneJob, TuningSettings
from pat.training.request import Arm
from pat.training.trainer import PatTrainer
from pat.training.training_arguments import training_arguments
from pat.training.tuned_model import adapted
from pat.training.tuning_record import trainable_parameters

SCHEMA = 3
FLOPS_PER_PARAMETER = 4
"""A token's multiplications and additions with frozen weights: forward, and backward to the inputs alone."""
MATMUL_REPEATS, PRODUCTS = 5, 20


class RandomTokens(Dataset[dict[str, Any]]):
    """Rows of random tokens of one length, all of them labels."""

    def __init__(self, rows: int, length: int, vocabulary: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.tokens_NT = torch.randint(0, vocabulary, (rows, length), generator=generator)

    def __len__(self) -> int:
        return len(self.tokens_NT)

    def __getitem__(self, index: int) -> dict[str, Any]:
        tokens_T = self.tokens_NT[index]
        return {"input_ids": tokens_T, "labels": tokens_T}


class CutToLengths:
    """Collates rows of one length, each batch cut to the next of `lengths`, which begin again behind their end."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self._lengths = cycle(lengths)

    def __call__(self, rows: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        length = next(self._lengths)
        return {name: torch.stack([row[name][:length] for row in rows]) for name in rows[0]}


class CompactAt(TrainerCallback):
    """Compacts the model before a step, so that the closed mask can be measured without and with it."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: PatModel | None = None, **kwargs: Any
    ) -> None:
        if state.global_step == self.step:
            assert model is not None
            model.compact()


class StepClock(TrainerCallback):
    """Times every optimizer step, from the end of the one before, and keeps each phase's peak memory.

    A phase is `warmup` unmeasured steps and then `steps` measured ones; the milestone lies between two phases. The device is waited for
    at a phase's ends alone: a training does not wait between its steps, and so can launch one while the other is computed.
    """

    def __init__(self, phases: Sequence[Phase], warmup: int, steps: int, device: str) -> None:
        self.phases, self.warmup, self.steps, self.device = phases, warmup, steps, device
        self._marks: list[machine.Mark] = []

    def _place(self, state: TrainerState) -> tuple[Phase, int]:
        """Return the phase of the step that runs, and how many of its steps are done."""
        done = state.global_step
        length = self.warmup + self.steps
        return self.phases[min(done // length, len(self.phases) - 1)], done % length

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._phase, self._done = self._place(state)
        if self._done == 0:
            self._begun = machine.mark(self.device)
        if self._done == self.warmup:
            warm = machine.mark(self.device)
            machine.wait_for(self.device)
            self._phase.warmup_s.append(warm.seconds_since(self._begun))
            machine.reset_peak(self.device)
            self._marks = [machine.mark(self.device)]

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._done >= self.warmup:
            self._marks.append(machine.mark(self.device))
        if self._done == self.warmup + self.steps - 1:
            machine.wait_for(self.device)
            self._phase.step_s += [later.seconds_since(earlier) for earlier, later in pairwise(self._marks)]
            self._phase.peak_bytes.append(machine.peak_bytes(self.device))


@threads_given_back
def benchmark_tuning(shape: ModelShape, settings: TuningBenchmark, seed: int, out: Path, *, force: bool = False) -> dict[str, Any]:
    """Measure LoRA and PAT on a shape, write the record to `out` and return it; times in seconds, memory in bytes."""
    check_replaceable(out, KINDS["benchmark tune"], force=force)
    narrowed_at(shape, settings.ratio, settings.pat.align, BYTES[settings.precision], settings.pat.hio_rank, "pat.")
    tell_budgets("benchmark tune", shape, [settings.ratio], settings.pat.align, BYTES[settings.precision])
    if settings.gradient_checkpointing == "feed-forward" and (reason := family_named(shape.family).recomputation_obstacle) is not None:
        raise UserError(f"gradient_checkpointing: feed-forward is not possible for a model of the family {shape.family!r}: {reason}")
    device = resolve_device(settings.device)
    torch.set_num_threads(settings.threads)
    clocks_before = machine.clocks(device)
    arms = arms_of(settings)
    progress = Progress("benchmark tune", len(arms) * settings.rounds)
    for turn in range(settings.rounds):
        for done, arm in enumerate(arms, start=1):
            _run_if_it_fits(arm, shape, settings, seed, device)
            progress.update(len(arms) * turn + done)
    progress.finish()
    parameters = parameter_count(stock_config(shape))
    rate = matmul_rate(shape, settings, device)
    tokens = round(settings.batch_size * mean(batch_lengths(settings, seed)[settings.warmup :]))
    floor_s = FLOPS_PER_PARAMETER * parameters * tokens / rate
    entries = [phase_record(phase, tokens, floor_s) for arm in arms for phase in arm]
    record = {
        "schema": SCHEMA,
        "kind": "tuning",
        "weights": "random",
        "shape": shape.model_dump(),
        "parameters": parameters,
        "tokens_per_step": tokens,
        "matmul_flops_per_s": rate,
        "floor_s": floor_s,
        "phases": entries,
        "schedules": schedule_records(entries, 0.0 if settings.pat.closing == "at-once" else settings.pat.milestone_fraction),
        "dtype": settings.precision,
        **machine.measured_on(device, clocks_before),
        "provenance": provenance({"shape": shape.model_dump()} | settings.model_dump(mode="json"), seed, device),
    }
    artefacts.write_json(out, record)
    for line in summary(record):
        say(line)
    return record


def arms_of(settings: TuningBenchmark) -> list[list[Phase]]:
    """Return the models that are trained in turn, each as the phases that it goes through."""
    after = [CLOSED, COMPACTED] if settings.uncompacted else [COMPACTED]
    pat = after if settings.pat.closing == "at-once" else [MASKED, *after]
    manners = (False, True) if settings.compile == "both" else (settings.compile,)
    return [[Phase(name, compiled) for name in names] for compiled in manners for names in ([LORA], pat)]


def _run_if_it_fits(arm: Sequence[Phase], shape: ModelShape, settings: TuningBenchmark, seed: int, device: str) -> None:
    """Run an arm once more, unless it did not fit before."""
    if not all(phase.fits for phase in arm):
        return
    try:
        _run(arm, shape, settings, seed, device)
    except RuntimeError as error:
        if not lacks_memory(error):
            raise
        for phase in arm:
            phase.fits = False
    machine.release(device)


def _run(arm: Sequence[Phase], shape: ModelShape, settings: TuningBenchmark, seed: int, device: str) -> None:
    """Train one model from its random start through the arm's phases, the milestone behind the first, compaction before the last."""
    prunes = arm[0].name != LORA
    length = settings.warmup + settings.steps
    set_seed(seed)
    if arm[0].compiled:
        torch.compiler.reset()
    stock = random_model(stock_config(shape), device, DTYPES[settings.precision], seed)
    stock.config.use_cache = False
    if device == "cuda":  # as `pat tune` does with rows that are padded on the right
        rely_on_causal_kernel(stock, settings.length)
    total = len(arm) * length
    trained = Arm(
        tuner="pat" if prunes else "lora",
        ratio=ratio_of(shape, settings.ratio, settings.pat.align, BYTES[settings.precision]) if prunes else 0.0,
        seed=seed,
        job=job_of(settings, total, milestone_step=length, prunes=prunes),
    )
    model = adapted(stock, trained)
    if trained.tuning.recomputes_feed_forward:
        recompute_feed_forward(stock)
    if arm[0].compiled:
        compile_layers(stock)
    for phase in arm:
        phase.trainable_parameters = trainable_parameters(model)
    with tempfile.TemporaryDirectory() as run_dir:
        trainer = PatTrainer(
            model=model,
            args=training_arguments(trained, Path(run_dir), device, plans_checkpoints=False),
            train_dataset=RandomTokens(settings.batch_size * total, settings.length, shape.vocab_size, seed),
            data_collator=CutToLengths(batch_lengths(settings, seed)),
            callbacks=[
                *([PatCallback(), CompactAt(total - length)] if isinstance(model, PatModel) else []),
                StepClock(arm, settings.warmup, settings.steps, device),
            ],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()


def batch_lengths(settings: TuningBenchmark, seed: int) -> list[int]:
    """Return the tokens a row of each batch of a phase, warm-up included; they are the same in all phases."""
    steps = settings.warmup + settings.steps
    if settings.shortest is None:
        return [settings.length] * steps
    generator = torch.Generator().manual_seed(seed)
    drawn: list[int] = torch.randint(settings.shortest, settings.length + 1, (steps,), generator=generator).tolist()
    return drawn


def job_of(settings: TuningBenchmark, total_steps: int, *, milestone_step: int, prunes: bool) -> TuneJob:
    """Return the recipe of one arm; PAT's milestone lies where its first phase ends, so that all phases are measured equally long."""
    return TuneJob(
        tuning=TuningSettings(
            max_steps=total_steps,
            learning_rate=5e-5,
            batch_size=settings.batch_size,
            precision=settings.precision,
            gradient_checkpointing=settings.gradient_checkpointing,
            checkpoint_steps=total_steps,
            log_steps=total_steps,
            lora=LoraSettings(rank=settings.pat_lora_rank if prunes else settings.lora_rank, dropout=settings.dropout),
        ),
        pat=PatChoices.model_validate(settings.pat.model_dump() | {"milestone_fraction": milestone_step / total_steps}),
    )


def matmul_rate(shape: ModelShape, settings: TuningBenchmark, device: str) -> float:
    """Return the operations per second of the feed-forward block's largest product, in the dtype that tuning multiplies in."""
    dtype = DTYPES[settings.precision]
    tokens = settings.batch_size * settings.length
    tokens_TD = torch.randn(tokens, shape.hidden_size, device=device, dtype=dtype)
    weight_DF = torch.randn(shape.hidden_size, shape.intermediate_size, device=device, dtype=dtype)

    def products() -> None:
        for _ in range(PRODUCTS):
            tokens_TD @ weight_DF

    _warm, *times = (machine.seconds(products, device) for _ in range(1 + MATMUL_REPEATS))
    return PRODUCTS * 2 * tokens * shape.hidden_size * shape.intermediate_size / median(times)
