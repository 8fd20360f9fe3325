"""`pat benchmark tune`: what a step of LoRA and of PAT costs, before and after the milestone, on the trainer that `pat tune` uses.

Random weights of a shape and random tokens. The arms take turns, `rounds` times, each on a model made anew, so that their memory is
their own and a drift of the machine shows.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from peft import PeftModel
from torch.utils.data import Dataset
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments, set_seed

from pat import artefacts
from pat.benchmark import machine
from pat.benchmark.candidates import DTYPES, parameter_count, random_model, stock_config
from pat.benchmark.settings import ModelShape, TuningBenchmark
from pat.benchmark.spread import spread
from pat.device import resolve_device
from pat.families import family_of
from pat.model import PatCallback, PatModel
from pat.progress import Progress, say
from pat.provenance import provenance
from pat.settings import LoraSettings, PatSettings, TuneJob, TuningSettings
from pat.tuning import PatTrainer, adapted, training_arguments

SCHEMA = 1
OUT_OF_MEMORY = "out of memory"
LORA, MASKED, CLOSED = "lora", "pat, before the milestone", "pat, after the milestone"
FLOPS_PER_PARAMETER = 4
"""A token's multiplications and additions with frozen weights: forward, and backward to the inputs alone."""
MATMUL_REPEATS, PRODUCTS = 5, 20
HALF = 0.5


@dataclass
class Phase:
    """What one arm showed over all rounds: seconds a step and the peak memory of each round."""

    name: str
    step_s: list[float] = field(default_factory=list)
    peak_bytes: list[int] = field(default_factory=list)
    trainable_parameters: int | None = None
    fits: bool = True


class RandomTokens(Dataset[dict[str, Any]]):
    """Rows of random tokens of one length, all of them labels."""

    def __init__(self, rows: int, length: int, vocabulary: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.tokens_NT = torch.randint(0, vocabulary, (rows, length), generator=generator)

    def __len__(self) -> int:
        return len(self.tokens_NT)

    def __getitem__(self, index: int) -> dict[str, Any]:
        tokens_T = self.tokens_NT[index]
        return {"input_ids": tokens_T, "labels": tokens_T, "attention_mask": torch.ones_like(tokens_T)}


class StepClock(TrainerCallback):
    """Times every optimizer step from its first forward pass to the mask's advance, and keeps each phase's peak memory.

    A phase is `warmup` unmeasured steps and then `steps` measured ones; the milestone lies between two phases.
    """

    def __init__(self, phases: Sequence[Phase], warmup: int, steps: int, device: str) -> None:
        self.phases, self.warmup, self.steps, self.device = phases, warmup, steps, device
        self._started = 0.0

    def _place(self, state: TrainerState) -> tuple[Phase, int]:
        """Return the phase of the step that runs, and how many of its steps are done."""
        done = state.global_step
        length = self.warmup + self.steps
        return self.phases[min(done // length, len(self.phases) - 1)], done % length

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._phase, self._done = self._place(state)
        if self._done == self.warmup:
            machine.reset_peak(self.device)
        machine.wait_for(self.device)
        self._started = time.perf_counter()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        machine.wait_for(self.device)
        if self._done >= self.warmup:
            self._phase.step_s.append(time.perf_counter() - self._started)
        if self._done == self.warmup + self.steps - 1:
            self._phase.peak_bytes.append(machine.peak_bytes(self.device))


def benchmark_tuning(shape: ModelShape, settings: TuningBenchmark, seed: int, out: Path) -> dict[str, Any]:
    """Measure LoRA and PAT on a shape, write the record to `out` and return it; times in seconds, memory in bytes."""
    device = resolve_device(settings.device)
    torch.set_num_threads(settings.threads)
    clocks_before = machine.clocks(device)
    phases = {name: Phase(name) for name in (LORA, MASKED, CLOSED)}
    progress = Progress("benchmark tune", 2 * settings.rounds)
    for turn in range(settings.rounds):
        for done, arm in enumerate(([phases[LORA]], [phases[MASKED], phases[CLOSED]]), start=1):
            _run_if_it_fits(arm, shape, settings, seed, device)
            progress.update(2 * turn + done)
    progress.finish()
    parameters = parameter_count(stock_config(shape))
    rate = matmul_rate(shape, settings, device)
    tokens = settings.batch_size * settings.length
    floor_s = FLOPS_PER_PARAMETER * parameters * tokens / rate
    entries = [phase_record(phase, tokens, floor_s) for phase in phases.values()]
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
        "schedule": schedule_record(entries, settings.pat.milestone_fraction),
        "dtype": settings.precision,
        "compiled": settings.compile,
        "memory_measure": machine.memory_measure(device),
        "machine": machine.description(device),
        "clocks": {"before": clocks_before, "after": machine.clocks(device)},
        "provenance": provenance({"shape": shape.model_dump()} | settings.model_dump(mode="json"), seed, device),
    }
    artefacts.write_json(out, record)
    for line in summary(record):
        say(line)
    return record


def _run_if_it_fits(arm: Sequence[Phase], shape: ModelShape, settings: TuningBenchmark, seed: int, device: str) -> None:
    """Run an arm once more, unless it did not fit before."""
    if not all(phase.fits for phase in arm):
        return
    try:
        _run(arm, shape, settings, seed, device)
    except RuntimeError as error:
        if not machine.is_out_of_memory(error):
            raise
        for phase in arm:
            phase.fits = False
    machine.release(device)


def _run(arm: Sequence[Phase], shape: ModelShape, settings: TuningBenchmark, seed: int, device: str) -> None:
    """Train one model from its random start through the arm's phases, the milestone between them."""
    prunes = len(arm) > 1
    set_seed(seed)
    if settings.compile:
        torch.compiler.reset()
    stock = random_model(stock_config(shape), device, DTYPES[settings.precision], seed)
    stock.config.use_cache = False
    total = len(arm) * (settings.warmup + settings.steps)
    job = job_of(settings, total, prunes=prunes)
    model = adapted(stock, "pat" if prunes else "lora", settings.ratio if prunes else 0.0, seed, job)
    if settings.compile:
        compile_layers(model)
    for phase in arm:
        phase.trainable_parameters = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    with tempfile.TemporaryDirectory() as run_dir:
        arguments = training_arguments(job.tuning, seed, Path(run_dir), device)
        arguments.save_strategy = "no"
        trainer = PatTrainer(
            None,
            model=model,
            args=arguments,
            train_dataset=RandomTokens(settings.batch_size * total, settings.length, shape.vocab_size, seed),
            callbacks=[
                *([PatCallback()] if isinstance(model, PatModel) else []),
                StepClock(arm, settings.warmup, settings.steps, device),
            ],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()


def job_of(settings: TuningBenchmark, total_steps: int, *, prunes: bool) -> TuneJob:
    """Return the recipe of one arm; PAT's milestone lies half-way, so that both phases are measured equally long."""
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
        pat=PatSettings.model_validate(settings.pat.model_dump() | {"milestone_fraction": HALF}),
    )


def compile_layers(model: PeftModel) -> None:
    """Compile each decoder layer in place: one graph serves all of them, and the shared code is compiled once."""
    stock: Any = model.get_base_model()
    for layer in stock.get_submodule(family_of(stock.config).layers):
        layer.compile(dynamic=False)


def matmul_rate(shape: ModelShape, settings: TuningBenchmark, device: str) -> float:
    """Return the operations a second of the feed-forward block's largest product, in the dtype that tuning multiplies in."""
    dtype = DTYPES[settings.precision]
    tokens = settings.batch_size * settings.length
    tokens_TD = torch.randn(tokens, shape.hidden_size, device=device, dtype=dtype)
    weight_DF = torch.randn(shape.hidden_size, shape.intermediate_size, device=device, dtype=dtype)

    def products() -> None:
        for _ in range(PRODUCTS):
            tokens_TD @ weight_DF

    _warm, *times = (machine.seconds(products, device) for _ in range(1 + MATMUL_REPEATS))
    return PRODUCTS * 2 * tokens * shape.hidden_size * shape.intermediate_size / median(times)


def phase_record(phase: Phase, tokens: int, floor_s: float) -> dict[str, Any]:
    """Return one phase's entry of the record; the floor is that of the unpruned model in every phase."""
    if not phase.fits:
        return {"name": phase.name, "status": OUT_OF_MEMORY}
    middle_s = median(phase.step_s)
    return {
        "name": phase.name,
        "status": "measured",
        "trainable_parameters": phase.trainable_parameters,
        "step_s": spread(phase.step_s),
        "tokens_per_s": tokens / middle_s,
        "peak_bytes": max(phase.peak_bytes),
        "share_of_floor": floor_s / middle_s,
    }


def schedule_record(entries: Sequence[dict[str, Any]], milestone_fraction: float) -> dict[str, Any] | None:
    """Return PAT's mean step over a whole schedule and its ratios to LoRA's; None where something did not fit."""
    if any(entry["status"] != "measured" for entry in entries):
        return None
    lora, masked, closed = (entry["step_s"]["median"] for entry in entries)
    mean_s = milestone_fraction * masked + (1.0 - milestone_fraction) * closed
    peak = max(entries[1]["peak_bytes"], entries[2]["peak_bytes"])
    return {
        "milestone_fraction": milestone_fraction,
        "step_s": mean_s,
        "of_lora": mean_s / lora,
        "peak_of_lora": peak / entries[0]["peak_bytes"],
    }


def summary(record: dict[str, Any]) -> Iterator[str]:
    """Yield a line a phase, and one for the whole schedule."""
    for entry in record["phases"]:
        if entry["status"] != "measured":
            yield f"{entry['name']}: {entry['status']}"
            continue
        yield (
            f"{entry['name']}: {1e3 * entry['step_s']['median']:.1f} ms a step, {entry['tokens_per_s']:.0f} tokens/s, "
            f"peak {entry['peak_bytes'] / 2**30:.2f} GiB, {entry['share_of_floor']:.0%} of the arithmetic floor's speed"
        )
    schedule = record["schedule"]
    if schedule:
        yield (
            f"pat over the schedule: {1e3 * schedule['step_s']:.1f} ms a step, {schedule['of_lora']:.2f} of LoRA's; "
            f"peak memory {schedule['peak_of_lora']:.2f} of LoRA's"
        )
