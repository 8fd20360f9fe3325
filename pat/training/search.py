"""`pat search-rate`: which of a few learning rates suits an arm (a method at a ratio) best, by the loss on held-out rows.

Owns the dev split, the comparison and its record, `rate.json`. Training is tuning.py's, the loss dev_loss.py's. The dev rows are of the
instruction set: no item of a task is ever looked at, and the final tuning, whose rate is then settled, learns from all rows.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from pat.bases.prepare import as_pat
from pat.data.instructions import Instructions
from pat.data.rows import Row, question_of, usable_rows
from pat.errors import UserError
from pat.io import artefacts
from pat.io.marks import KINDS, check_replaceable
from pat.io.progress import say
from pat.io.provenance import provenance
from pat.io.resume_folder import leave, locked
from pat.machine.threads import threads_given_back
from pat.settings.jobs import WHOLE, SearchSettings, TuneJob, end_of
from pat.training.checks import check_request
from pat.training.dev_loss import DevLoss, dev_loss
from pat.training.request import TuningRequest
from pat.training.resume import checkpoint_of, job_identity
from pat.training.tuning import train

LOSSES, TRAINING_ROWS = "row_losses.json", "training.jsonl"
NORMAL_95 = 1.96
"""Standard errors beyond which a difference is no chance at 95 %, two-sided."""


@dataclass(frozen=True)
class Parts:
    """The instruction set of a request in two, by the numbers of its usable rows; it is encoded once, when it is first asked for."""

    request: TuningRequest
    training: Sequence[int]
    dev: Sequence[int]

    @cached_property
    def _encoded(self) -> tuple[Instructions, Instructions]:
        whole = self.request.rows
        return whole.part(self.training, self.request.run_dir / TRAINING_ROWS), whole.part(self.dev, f"{self.request.data}, dev rows")

    def encoded_training(self) -> Instructions:
        """Return the rows to learn from. Raises UserError where nothing of them can be learned, or of the dev rows."""
        return self._encoded[0]

    def encoded_dev(self) -> Instructions:
        """Return the dev rows."""
        return self._encoded[1]


@threads_given_back
def search_rate(request: TuningRequest) -> dict[str, Any]:
    """Tune with every candidate rate, write what the dev rows say of each to the request's `out`, and return that record.

    Finished candidates are kept in `run_dir` until all are done. Raises UserError where the settings have no search, the rows are too few,
    no candidate stays finite, where `out` holds something else, and as `tune` does.
    """
    search = request.tuning.search
    if search is None:
        raise UserError(f"{reason_not_to(request)}: it names the learning rates to try, as learning_rates: [1e-4, 3e-4, 1e-3]")
    check_replaceable(request.out, KINDS["search-rate"], force=request.force)
    check_request(as_pat(request))
    torch.set_num_threads(request.tuning.threads)
    run_dir = request.run_dir
    rows = usable_rows(request.data, request.columns)
    parts = Parts(request, *split(rows, search.dev_rows, request.seed, request.data))
    with locked(run_dir):
        parts.encoded_training()
        inputs = request.inputs()
        checkpoint_of(run_dir, job_identity(request))
        artefacts.write_jsonl(run_dir / TRAINING_ROWS, (rows[number] for number in parts.training))  # masks are measured on them
        losses = _losses(request, search, parts)
        record = _record(search, losses, request.steps) | {"training_rows": len(parts.training), "dev_rows": len(parts.dev)}
        record["provenance"] = provenance(request.settings, request.seed, request.device, inputs)
        artefacts.write_json(request.out, record)
        leave(run_dir)
    return record


def reason_not_to(request: TuningRequest) -> str | None:
    """Return why no rate is searched for a request, None where one is."""
    return "tuning.search is not set" if request.tuning.search is None else None


def _losses(request: TuningRequest, search: SearchSettings, parts: Parts) -> list[DevLoss | None]:
    """Return what the dev rows say of each candidate; those that were measured before a kill are known."""
    run_dir = request.run_dir
    steps = search.steps or request.steps
    known: dict[str, dict[str, Any] | None] = artefacts.read_json(run_dir / LOSSES) if (run_dir / LOSSES).exists() else {}
    for number, rate in enumerate(search.learning_rates, start=1):
        if str(rate) in known:
            continue
        say(f"search: learning rate {rate:g}, candidate {number} of {len(search.learning_rates)}")
        candidate = replace(
            request,
            data=run_dir / TRAINING_ROWS,
            columns={},  # the rows were written with our names
            given_rows=parts.encoded_training,
            run_dir=run_dir / f"candidate{number}",
            job=candidate_job(request.job, rate, steps),
        )
        _, model = train(candidate)
        loss = dev_loss(model, replace(request, given_rows=parts.encoded_dev))
        known[str(rate)] = None if loss is None else asdict(loss)
        artefacts.write_json(run_dir / LOSSES, known)
        leave(candidate.run_dir)
    found = [known[str(rate)] for rate in search.learning_rates]
    return [None if loss is None else DevLoss(**loss) for loss in found]


def split(rows: Sequence[Row], dev_rows: int, seed: int, source: Path) -> tuple[list[int], list[int]]:
    """Return the numbers of (training rows, dev rows), the same ones for the same seed; rows that ask the same thing stay together.

    Prompts are drawn in random order until `dev_rows` rows are there. Raises UserError where nothing is left to learn from.
    """
    prompts = [question_of(row) for row in rows]
    order = sorted(set(prompts))
    random.Random(seed).shuffle(order)
    counts = dict.fromkeys(order, 0)
    for prompt in prompts:
        counts[prompt] += 1
    held_out: set[tuple[str, ...]] = set()
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
    numbered = list(enumerate(prompts))
    return [number for number, prompt in numbered if prompt not in held_out], [number for number, prompt in numbered if prompt in held_out]


def candidate_job(job: TuneJob, rate: float, steps: int) -> TuneJob:
    """Return the settings of one candidate's training: the job's, with this rate and number of steps, told to no tracker.

    The steps are named, not the epochs: the rows that are kept apart would take some of these away.
    """
    own = {"learning_rate": rate, "search": None, "report_to": (), "max_steps": steps, "epochs": None, "share": WHOLE}
    return job.model_copy(update={"tuning": job.tuning.model_copy(update=own)})


def _record(search: SearchSettings, losses: Sequence[DevLoss | None], steps: int) -> dict[str, Any]:
    """Return what `rate.json` says of the candidates; of equal losses the smaller rate wins. `steps` are the tuning's."""
    tried = dict(zip(search.learning_rates, losses, strict=True))
    finite = sorted((loss.mean, rate) for rate, loss in tried.items() if loss is not None)
    if not finite:
        listed = ", ".join(f"{rate:g}" for rate in search.learning_rates)
        raise UserError(f"tuning.search.learning_rates: every candidate ({listed}) diverged; try smaller rates")
    mean, chosen = finite[0]
    candidates = [{"learning_rate": rate} | _beside(loss, tried[chosen]) for rate, loss in tried.items()]
    note = "; ".join(_notes(search, chosen, candidates, steps)) or None
    say(f"search: learning rate {chosen:g} is best on the dev rows (loss {mean:.4f})" + (f"; {note}" if note else ""))
    return {"learning_rate": chosen, "candidates": candidates, "note": note}


def _beside(loss: DevLoss | None, best: DevLoss | None) -> dict[str, Any]:
    """Return what the record says of a candidate's loss, and whether these rows tell it from the best one's."""
    if loss is None or best is None or loss is best:
        return {"dev_loss": loss and loss.mean, "difference_error": None, "told_apart": None}
    error = loss.difference_error(best)
    apart = None if error is None else loss.mean - best.mean > NORMAL_95 * error
    return {"dev_loss": loss.mean, "difference_error": error, "told_apart": apart}


def _notes(search: SearchSettings, chosen: float, candidates: Sequence[Mapping[str, Any]], steps: int) -> Iterator[str]:
    """Say what speaks against taking the best candidate for the best rate."""
    if edge := end_of(chosen, search.learning_rates):
        yield f"the best rate, {chosen:g}, is the {edge} candidate: the best of all may lie beyond; widen the grid"
    if equals := [f"{candidate['learning_rate']:g}" for candidate in candidates if candidate["told_apart"] is False]:
        yield f"the dev rows do not tell {' and '.join(equals)} from it"
    if search.steps and search.steps < steps:
        yield f"each candidate had {search.steps} of the tuning's {steps} steps, and what is best then need not be best at the end"


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
    if not _are_candidates(record.get("candidates", [])):
        raise UserError(f"{rate_from}: its candidates are no list of learning rates with the loss of each; search again")
    return job.model_copy(update={"tuning": job.tuning.model_copy(update={"learning_rate": rate})})


def _are_candidates(found: object) -> bool:
    """Whether that is what a record says of candidates, as far as what reads it later needs."""
    return isinstance(found, list) and all(
        isinstance(one, dict)
        and isinstance(one.get("learning_rate"), int | float)
        and isinstance(one.get("dev_loss", ""), int | float | None)
        for one in found
    )
