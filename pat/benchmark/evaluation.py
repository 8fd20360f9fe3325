"""`pat benchmark evaluation`: items per second of `pat evaluate` at several batch sizes, against lm-eval's stock `hf` one by one.

One model serves all; what is timed is the harness with its own overhead, loading left out. Answers are compared item by item.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pat.benchmark import machine, so_far
from pat.benchmark.candidates import DTYPES, parameter_count, random_model, stock_config
from pat.benchmark.random_items import capital_tokenizer, random_tasks
from pat.benchmark.settings import EvaluationBenchmark, ModelShape
from pat.benchmark.spread import speedup, spread
from pat.data.items import Item
from pat.errors import UserError
from pat.io.marks import KINDS, check_replaceable
from pat.io.progress import Progress, say
from pat.io.provenance import provenance
from pat.machine.device import resolve_device
from pat.machine.out_of_memory import lacks_memory
from pat.machine.threads import threads_given_back, tokenizing_with
from pat.scoring import harness
from pat.scoring.answers import Outcome
from pat.scoring.batched_lm import BatchedLM
from pat.scoring.evaluation import read_tasks
from pat.scoring.examinee import count_cut_items, load_examinee
from pat.scoring.generation_options import none_of_its_own
from pat.settings.fields import GIB
from pat.settings.jobs import EvaluationSettings

SCHEMA = 1
STOCK, OURS = "lm-eval hf", "pat"
SCORINGS = (harness.GENERATED, harness.LIKELIHOOD)


class StockLM(HFLM):  # type: ignore[misc]  # lm_eval ships no types
    """lm-eval's own model at its default batch of 1, without its bars; probabilities are taken in fp32, as ours are."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__(pretrained=model, tokenizer=tokenizer, batch_size=1, softmax_dtype="float32")

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """Return what lm-eval does."""
        answers: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
        return answers

    def generate_until(self, requests: list[Any], disable_tqdm: bool = True) -> list[str]:
        """Return what lm-eval does, without options of the model's own, as ours."""
        with none_of_its_own(self.model):
            answers: list[str] = super().generate_until(requests, disable_tqdm=True)
        return answers


@dataclass
class Arm:
    """One way to ask under one scoring: its rounds, its peak memory and its answers, or that it does not fit."""

    name: str
    scoring: str
    lm: HFLM
    device: str
    max_new_tokens: int
    seconds: list[float] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    peak_bytes: int = 0
    fits: bool = True

    def warm_up(self, tasks: Mapping[str, list[Item]]) -> None:
        """Answer the items unmeasured."""
        self._ask(tasks)

    def measure(self, tasks: Mapping[str, list[Item]]) -> None:
        """Add one round over all items."""
        machine.reset_peak(self.device)
        time_s = self._ask(tasks)
        if time_s is not None:
            self.seconds.append(time_s)
            self.peak_bytes = max(self.peak_bytes, machine.peak_bytes(self.device))

    def _ask(self, tasks: Mapping[str, list[Item]]) -> float | None:
        """Return the seconds, and keep the answers; None where memory does not suffice."""
        if not self.fits:
            return None
        generate = self.scoring == harness.GENERATED
        found: dict[str, list[Outcome]] = {}

        def job() -> None:
            found.update(
                harness.answers(self.lm, tasks, generate=generate, log_likelihood=not generate, max_new_tokens=self.max_new_tokens)
            )

        try:
            time_s = machine.seconds(job, self.device)
        except RuntimeError as error:
            if not lacks_memory(error):
                raise
            self.fits = False
        else:
            self.outcomes = [outcome for outcomes in found.values() for outcome in outcomes]
            return time_s
        machine.release(self.device)  # outside the handler: the error holds the tensors alive
        return None

    def record(self, stock: Arm) -> dict[str, Any]:
        """Return the JSON's entry, with how much of it agrees with the stock model's answers."""
        entry = {"name": self.name, "scoring": self.scoring, "batch_size": int(self.lm.batch_size)}
        if not self.fits:
            return entry | {"status": machine.OUT_OF_MEMORY}
        entry |= {
            "status": "measured",
            "seconds": spread(self.seconds),
            "items_per_s": spread([len(self.outcomes) / time_s for time_s in self.seconds]),
            "peak_bytes": self.peak_bytes,
        }
        if self is stock or not stock.fits:
            return entry
        return entry | {"speedup": speedup(stock.seconds, self.seconds)} | agreement(stock.outcomes, self.outcomes)


def agreement(expected: Sequence[Outcome], found: Sequence[Outcome]) -> dict[str, float | None]:
    """Return the shares of items with the same answer under every metric and with the same text, and the largest log-likelihood gap.

    Texts are there under the generated scoring alone, log-likelihoods under the other; what is not there is None.
    """
    pairs = list(zip(expected, found, strict=True))
    gaps = [
        abs(one - other)
        for was, now in pairs
        for one, other in zip(was.log_likelihoods or (), now.log_likelihoods or (), strict=True)
    ]  # fmt: skip
    generated = expected[0].generated is not None
    return {
        "same_answers": sum(was.predictions == now.predictions for was, now in pairs) / len(pairs),
        "same_texts": sum(was.generated == now.generated for was, now in pairs) / len(pairs) if generated else None,
        "largest_log_likelihood_gap": max(gaps) if gaps else None,
    }


@threads_given_back
def benchmark_evaluation(
    shape: ModelShape | None,
    folder: Path | None,
    tasks: Sequence[Path],
    settings: EvaluationBenchmark,
    seed: int,
    out: Path,
    *,
    force: bool = False,
) -> dict[str, Any]:
    """Measure a shape with random weights on random items, or a checkpoint on task files; write the record to `out` and return it.

    Raises UserError unless exactly one of shape and folder with tasks is given, or on what `pat evaluate` refuses.
    """  # fmt: skip
    check_replaceable(out, KINDS["benchmark evaluation"], force=force)
    if (shape is None) == (folder is None) or (folder is None) == bool(tasks):
        raise UserError("give exactly one of --shape, whose items are random, and --model with --task")
    torch.set_num_threads(settings.threads)
    model, tokenizer, items, cut = _examinee(shape, folder, tasks, settings, seed)
    device = model.device.type
    clocks_before = machine.clocks(device)
    measured = {
        "shape": shape.model_dump() if shape else None,
        "folder": str(folder) if folder else None,
        "tasks": [str(path) for path in tasks],
    }

    parameters = parameter_count(model.config)
    with tokenizing_with(settings.threads):
        for arms in _rounds(model, tokenizer, items, settings, device):
            record = {
                "schema": SCHEMA,
                "kind": "evaluation",
                "weights": "checkpoint" if shape is None else "random",
                **measured,
                "parameters": parameters,
                "items": {name: len(ones) for name, ones in items.items()},
                "truncated_items": cut,
                "measurements": [arm.record(next(it for it in arms if it.scoring == arm.scoring)) for arm in arms],
                "max_new_tokens": settings.max_new_tokens,
                "dtype": settings.precision,
                "softmax_dtype": "fp32",
                "attention": settings.attention,
                **machine.measured_on(device, clocks_before),
                "provenance": provenance(measured | settings.model_dump(mode="json"), seed, device),
            }
            so_far.keep(record, out)
    so_far.finish(out)
    for line in summary(record):
        say(line)
    return record


Examinee = tuple[PreTrainedModel, PreTrainedTokenizerBase, dict[str, list[Item]], dict[str, int]]
"""Model, tokenizer, items by task, and how many of them the model's context cuts."""


def _examinee(shape: ModelShape | None, folder: Path | None, tasks: Sequence[Path], settings: EvaluationBenchmark, seed: int) -> Examinee:
    asked = EvaluationSettings(**settings.model_dump(include={"max_new_tokens", "precision", "device", "threads"}))
    if shape is not None:
        device = resolve_device(settings.device)
        model = random_model(stock_config(shape), device, DTYPES[settings.precision], seed, settings.attention)
        tokenizer: PreTrainedTokenizerBase = capital_tokenizer(shape.vocab_size)
        items = random_tasks(settings.items, shape.vocab_size, seed)
    else:
        assert folder is not None
        items = {name: ones[: settings.items] for name, ones in read_tasks(tasks, None).items()}
        model, tokenizer = load_examinee(folder, asked, seed)
        model.set_attn_implementation(settings.attention)
    return model, tokenizer, items, {name: count_cut_items(model, tokenizer, ones, asked) for name, ones in items.items()}


def _rounds(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tasks: dict[str, list[Item]], settings: EvaluationBenchmark, device: str
) -> Iterator[list[Arm]]:
    """Yield all arms after every round, in which those of a scoring took turns, the stock one first."""
    ours = [BatchedLM(model, tokenizer, size) for size in sorted(settings.batch_sizes)]
    models = [(STOCK, StockLM(model, tokenizer)), *((OURS, lm) for lm in ours)]
    arms = [Arm(name, scoring, lm, device, settings.max_new_tokens) for scoring in SCORINGS for name, lm in models]
    few = {name: items[:1] for name, items in tasks.items()}
    progress = Progress("benchmark evaluation", settings.rounds * len(arms))
    for arm in arms:
        arm.warm_up(few if arm.name == STOCK else tasks)  # one by one, an item of each task has been every way there is
    for done in range(settings.rounds):
        for number, arm in enumerate(arms, start=1):
            arm.measure(tasks)
            progress.update(done * len(arms) + number)
        yield arms
    progress.finish()


def summary(record: dict[str, Any]) -> list[str]:
    """Return a line per measurement: items per second, how many times the stock model's, and how much of the answers is the same."""
    lines = []
    for entry in record["measurements"]:
        label = f"{entry['scoring']}, {entry['name']}, batch {entry['batch_size']}"
        if entry["status"] == machine.OUT_OF_MEMORY:
            lines.append(f"{label}: {machine.OUT_OF_MEMORY}")
            continue
        line = f"{label}: {entry['items_per_s']['median']:.1f} items per second, peak {entry['peak_bytes'] / GIB:.2f} GiB"
        if "speedup" in entry:
            line += f"; {entry['speedup']['median']:.2f} x; same answers {entry['same_answers']:.1%}"
            if entry["same_texts"] is not None:
                line += f", same texts {entry['same_texts']:.1%}"
            if entry["largest_log_likelihood_gap"] is not None:
                line += f", log-likelihoods within {entry['largest_log_likelihood_gap']:.2g}"
        lines.append(line)
    return lines
