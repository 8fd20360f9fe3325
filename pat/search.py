"""`pat search-rate`: which of a few learning rates suits an arm (a method at a ratio) best, by the loss on held-out rows.

Owns the dev split, the comparison and its record, `rate.json`. Training is tuning.py's. The dev rows are of the instruction set: no item
of a task is ever looked at, and the final tuning, whose rate is then settled, learns from all rows.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from pat import artefacts, checkpoint
from pat.base_checks import check_base
from pat.errors import UserError
from pat.instructions import Instructions, PadToLongest
from pat.marks import KINDS, check_replaceable
from pat.progress import say
from pat.provenance import described, provenance
from pat.resume import checkpoint_of
from pat.resume_folder import leave, locked
from pat.rows import read_instructions
from pat.settings import SearchSettings, TuneJob
from pat.threads import threads_given_back
from pat.token_loss import cross_entropies, learned_tokens, read
from pat.tuning import job_identity, train

LOSSES = "losses.json"
Row = dict[str, str]


@threads_given_back
def search_rate(
    base: Path,
    data: Path,
    tuner: str,
    ratio: float,
    seed: int,
    job: TuneJob,
    run_dir: Path,
    out: Path,
    teacher: Path | None = None,
    *,
    force: bool = False,
) -> dict[str, Any]:
    """Tune with every candidate rate, write what the dev rows say of each to `out`, and return that record.

    Finished candidates are kept in `run_dir` until all are done. Raises UserError where the settings have no search, the rows are too few,
    no candidate stays finite, where `out` holds something else, unless with `force`, and as `tune` does.
    """  # fmt: skip
    search = job.tuning.search
    if search is None:
        raise UserError("tuning.search is not set: it names the learning rates to try, as learning_rates: [1e-4, 3e-4, 1e-3]")
    check_replaceable(out, KINDS["search-rate"], force=force)
    check_base(base, tokenizer=True)
    torch.set_num_threads(job.tuning.threads)
    training, held_out = split(read_instructions(data), search.dev_rows, seed, data)
    with locked(run_dir):
        inputs = {name: described(path) for name, path in (("base", base), ("data", data), ("teacher", teacher)) if path is not None}
        checkpoint_of(run_dir, job_identity(base, data, tuner, ratio, seed, job, teacher))
        files = run_dir / "training.jsonl", run_dir / "dev.jsonl"
        for path, rows in zip(files, (training, held_out), strict=True):
            artefacts.write_jsonl(path, rows)
        losses = _losses(base, files, tuner, ratio, seed, job, search, run_dir, teacher)
        record = _record(search, losses, len(training), len(held_out))
        record["provenance"] = provenance(job.model_dump(mode="json") | {"tuner": tuner, "ratio": ratio}, seed, inputs=inputs)
        artefacts.write_json(out, record)
        leave(run_dir)
    return record


def _losses(
    base: Path,
    files: tuple[Path, Path],
    tuner: str,
    ratio: float,
    seed: int,
    job: TuneJob,
    search: SearchSettings,
    run_dir: Path,
    teacher: Path | None,
) -> list[float | None]:
    """Return each candidate's loss on the dev rows; `files` are the training rows and the dev rows."""  # fmt: skip
    losses: dict[str, float | None] = artefacts.read_json(run_dir / LOSSES) if (run_dir / LOSSES).exists() else {}
    for number, rate in enumerate(search.learning_rates, start=1):
        if str(rate) in losses:
            continue
        say(f"search: learning rate {rate:g}, candidate {number} of {len(search.learning_rates)}")
        candidate_dir = run_dir / f"candidate{number}"
        _, model = train(base, files[0], tuner, ratio, seed, candidate_job(job, search, rate), candidate_dir, teacher)
        losses[str(rate)] = dev_loss(model, base, files[1], job)
        artefacts.write_json(run_dir / LOSSES, losses)
        leave(candidate_dir)
    return [losses[str(rate)] for rate in search.learning_rates]


def split(rows: Sequence[Row], dev_rows: int, seed: int, source: Path) -> tuple[list[Row], list[Row]]:
    """Return (training rows, dev rows), the same ones for the same seed; rows that ask the same thing stay together.

    Prompts are drawn in random order until `dev_rows` rows are there. Raises UserError where nothing is left to learn from.
    """
    prompts = [(row["instruction"], row.get("input", "")) for row in rows]
    order = sorted(set(prompts))
    random.Random(seed).shuffle(order)
    counts = dict.fromkeys(order, 0)
    for prompt in prompts:
        counts[prompt] += 1
    held_out: set[tuple[str, str]] = set()
    taken = 0
    for prompt in order:
        if taken >= dev_rows:
            break
        held_out.add(prompt)
        taken += counts[prompt]
    if taken < dev_rows or taken == len(rows):
        raise UserError(
            f"{source}: holds {len(rows)} rows of {len(order)} different prompts, too few for tuning.search.dev_rows={dev_rows} "
            "and something to learn from; lower it"
        )
    pairs = list(zip(rows, prompts, strict=True))
    return [row for row, prompt in pairs if prompt not in held_out], [row for row, prompt in pairs if prompt in held_out]


def candidate_job(job: TuneJob, search: SearchSettings, rate: float) -> TuneJob:
    """Return the settings of one candidate's training: the job's, with this rate and the search's number of steps."""
    length = {"max_steps": search.steps, "epochs": None} if search.steps else {}
    return job.model_copy(update={"tuning": job.tuning.model_copy(update={"learning_rate": rate, "search": None, **length})})


@torch.no_grad()
def dev_loss(model: PeftModel, base: Path, dev: Path, job: TuneJob) -> float | None:
    """Return the mean cross-entropy in nats a learned token of the file `dev`, None where it is not finite.

    It is the data's part of the loss alone, whatever else an arm learns from.
    """
    tokenizer = checkpoint.load_tokenizer(base)
    rows = Instructions(dev, tokenizer, job.tuning.max_length)
    collate, size = PadToLongest(tokenizer, model.device.type), job.tuning.micro_batch_size or job.tuning.batch_size
    bf16 = job.tuning.precision == "bf16"
    stock: Any = model.get_base_model()
    total, tokens = 0.0, 0
    model.eval()
    for start in range(0, len(rows), size):
        batch = collate([rows[index] for index in range(start, min(start + size, len(rows)))])
        inputs = {name: tensor.to(model.device) for name, tensor in batch.items()}
        learned = learned_tokens(inputs.pop("labels"))
        with torch.autocast(model.device.type, torch.bfloat16) if bf16 else nullcontext():
            hidden_BTD, head = read(model, stock, inputs)
            losses = cross_entropies(head, hidden_BTD, learned)
        total, tokens = total + float(losses.double().sum()), tokens + len(losses)
    mean = total / tokens
    return mean if math.isfinite(mean) else None


def _record(search: SearchSettings, losses: Sequence[float | None], training_rows: int, dev_rows: int) -> dict[str, Any]:
    """Return what `rate.json` says but for its provenance; of equal losses the smaller rate wins."""
    finite = sorted((loss, rate) for loss, rate in zip(losses, search.learning_rates, strict=True) if loss is not None)
    if not finite:
        listed = ", ".join(f"{rate:g}" for rate in search.learning_rates)
        raise UserError(f"tuning.search.learning_rates: every candidate ({listed}) diverged; try smaller rates")
    loss, chosen = finite[0]
    edge = {min(search.learning_rates): "smallest", max(search.learning_rates): "largest"}.get(chosen)
    note = f"the best rate, {chosen:g}, is the {edge} candidate: the best of all may lie beyond; widen the grid" if edge else None
    say(f"search: learning rate {chosen:g} is best on the dev rows (loss {loss:.4f})" + (f"; {note}" if note else ""))
    return {
        "learning_rate": chosen,
        "candidates": [{"learning_rate": rate, "dev_loss": loss} for rate, loss in zip(search.learning_rates, losses, strict=True)],
        "training_rows": training_rows,
        "dev_rows": dev_rows,
        "note": note,
    }


def with_searched_rate(job: TuneJob, rate_from: Path | None) -> TuneJob:
    """Return the job at the rate that a search has chosen; a job with a rate of its own as it is.

    Raises UserError where a search has no record or a record no search, and where the record is not this search's.
    """
    search = job.tuning.search
    if rate_from is None:
        if search is not None:
            raise UserError("tuning.search is set, but there is no --rate-from: give the rate.json that `pat search-rate` wrote")
        return job
    if search is None:
        raise UserError(f"--rate-from {rate_from}: contradicts tuning.learning_rate={job.tuning.learning_rate:g}; give one of them")
    record = artefacts.read_json(rate_from)
    rate = record.get("learning_rate") if isinstance(record, dict) else None
    if rate not in search.learning_rates:
        listed = ", ".join(f"{known:g}" for known in search.learning_rates)
        raise UserError(f"{rate_from}: its learning_rate {rate!r} is none of tuning.search.learning_rates ({listed}); search again")
    return job.model_copy(update={"tuning": job.tuning.model_copy(update={"learning_rate": rate})})
