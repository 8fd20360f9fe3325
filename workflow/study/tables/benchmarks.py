"""Lays out benchmark records as tables: pruning and merging, a step of tuning, inference, evaluation, exports. No number is typed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from pat.benchmark.settings import runtime_of
from pat.errors import UserError
from pat.io.artefacts import read_json
from pat.settings.fields import GIB, MIB
from study.results.benchmarks import Inference, Part, Record, Spread, fields_of
from study.results.exports import Exports
from study.results.quantised import quantised_notes, quantised_origins
from study.tables.layouts import HOLE, Layout

RANDOM = "random"
RecordT = TypeVar("RecordT", bound=Part)


class FolderJob(Record):
    """A record of `pat benchmark prune` or `pat benchmark merge`."""

    kind: Literal["prune", "merge"]
    pruner: str | None = None
    wall_s: float
    copy_bytes: int
    peak_host_of_copy: float
    peak_gpu_bytes: int | None
    share_removed: float


class _Phase(Part):
    name: str
    compiled: bool
    step_s: Spread | None = None
    peak_bytes: int | None = None
    warmup_s: list[float] = []


class _Schedule(Part):
    compiled: bool
    compacted: bool
    step_s: float
    peak_bytes: int
    of_lora: dict[str, float]
    peak_of_lora: dict[str, float]


class Tuning(Record):
    """A record of `pat benchmark tune`."""

    kind: Literal["tuning"]
    phases: list[_Phase]
    schedules: list[_Schedule]


class _Answers(Part):
    """One way to ask; `speedup` and the shares are against the first way of the same scoring, which has none."""

    name: str
    scoring: str
    batch_size: int
    items_per_s: Spread | None = None
    peak_bytes: int | None = None
    speedup: Spread | None = None
    same_answers: float | None = None
    same_texts: float | None = None
    largest_log_likelihood_gap: float | None = None


class Evaluation(Record):
    """A record of `pat benchmark evaluation`."""

    kind: Literal["evaluation"]
    dtype: str
    measurements: list[_Answers]


KINDS: Mapping[str, type[Record | Exports]] = {
    "prune": FolderJob, "merge": FolderJob, "tuning": Tuning, "inference": Inference, "evaluation": Evaluation, "export": Exports,
}  # fmt: skip


def read_record(path: Path) -> Record | Exports:
    """Return a record. Raises UserError where the file is none."""
    content: Any = read_json(path)
    kind = str(content.get("kind")) if isinstance(content, dict) else ""
    if kind not in KINDS:
        raise UserError(f"{path}: is not a record of `pat benchmark` that has a table; its kind is {kind!r}, not one of {', '.join(KINDS)}")
    try:
        return KINDS[kind].model_validate(fields_of(content, path))
    except ValidationError as error:
        raise UserError(f"{path}: is not a record of `pat benchmark` ({error})") from None


def layouts_of(records: Sequence[Record | Exports]) -> list[Layout]:
    """Return a table for each kind of benchmark that there is, and one for each tuning and each comparison of exports."""
    jobs, generations, answers = _of(FolderJob, records), _of(Inference, records), _of(Evaluation, records)
    made = [
        folder_jobs(jobs) if jobs else None,
        *(tuning(step) for step in _of(Tuning, records)),
        inference(generations) if generations else None,
        evaluation(answers) if answers else None,
        *(exports(it) for it in _of(Exports, records)),
    ]
    return [layout for layout in made if layout]


def _of(kind: type[RecordT], records: Iterable[Record | Exports]) -> list[RecordT]:
    return [it for it in records if isinstance(it, kind)]


def _caption(what: str, records: Sequence[Record]) -> str:
    random = [it.weights == RANDOM for it in records]
    weights = ", random weights" if all(random) else ", random weights in a part" if any(random) else ""
    return f"{what}{weights}. {_made_by(records)}"


def _made_by(records: Sequence[Record | Exports]) -> str:
    made_by = sorted({f"{it.machine.name}, {it.machine.cores} CPU cores" for it in records})
    commits = sorted({(it.provenance.git_commit or "unknown")[:10] for it in records})
    torch = sorted({it.provenance.versions["torch"] for it in records})
    return f"{'; '.join(made_by)}; torch {', '.join(torch)}; commit {', '.join(commits)}."


def folder_jobs(records: Sequence[FolderJob]) -> Layout:
    """Return a line per pruning or merge."""
    header = ["What", "Shape", "Removed", "Seconds", "Peak memory, copies of the model", "Peak on the GPU, GiB"]
    rows = [
        [
            "merge" if it.kind == "merge" else f"prune: {it.pruner}",
            it.shape,
            f"{it.share_removed:.1%}",
            f"{it.wall_s:.0f}",
            f"{it.peak_host_of_copy:.2f}",
            "" if it.peak_gpu_bytes is None else f"{it.peak_gpu_bytes / GIB:.1f}",
        ]
        for it in records
    ]
    return Layout(_caption("Pruning and merging", records), header, rows, text_columns=2)


def tuning(record: Tuning) -> Layout:
    """Return a line per phase of a schedule, eager and compiled, and one for the mean over the whole schedule."""
    header = [
        "Shape", "Layers", "What", "Step, ms", "Of LoRA's, same layers", "Of compiled LoRA's", "First warm-up, s", "Peak, GiB",
        "Of LoRA's, same layers",
    ]  # fmt: skip
    rows = [*_phase_lines(record), *_schedule_lines(record)]
    return Layout(_caption(f"A step of tuning, {_compared(record)}", [record]), header, rows, text_columns=3)


def _compared(record: Tuning) -> str:
    settings = record.provenance.settings
    pat: Mapping[str, Any] = settings["pat"]
    operators = f"HIO-{pat['hio_rank']} and " if pat["hio_rank"] else ""
    closing = ", closed from the first step" if pat.get("closing") == "at-once" else ""
    shortest = settings.get("shortest")
    lengths = f"; batches of {settings['batch_size']} rows, of {shortest} to {settings['length']} tokens" if shortest else ""
    return f"LoRA-{settings['lora_rank']} against PAT with {operators}LoRA-{settings['pat_lora_rank']}{closing}{lengths}"


def _phase_lines(record: Tuning) -> Iterable[list[str]]:
    steps_s = {phase.compiled: phase.step_s.median for phase in record.phases if phase.name == "lora" and phase.step_s}
    peaks = {phase.compiled: phase.peak_bytes for phase in record.phases if phase.name == "lora"}
    for phase in record.phases:
        identity = [record.shape, runtime_of(compiled=phase.compiled), phase.name]
        if phase.step_s is None or phase.peak_bytes is None:
            yield [*identity, "out of memory", HOLE, HOLE, HOLE, HOLE, HOLE]
            continue
        middle_s = phase.step_s.median
        yield [
            *identity, _milliseconds(phase.step_s), _ratio(middle_s, steps_s.get(phase.compiled)), _ratio(middle_s, steps_s.get(True)),
            f"{phase.warmup_s[0]:.0f}" if phase.warmup_s else HOLE, f"{phase.peak_bytes / GIB:.1f}",
            _ratio(phase.peak_bytes, peaks.get(phase.compiled)),
        ]  # fmt: skip


def _schedule_lines(record: Tuning) -> Iterable[list[str]]:
    for schedule in record.schedules:
        manner = runtime_of(compiled=schedule.compiled)
        yield [
            record.shape, manner, f"pat, whole schedule{', compacted' if schedule.compacted else ''}", f"{1e3 * schedule.step_s:.1f}",
            *(f"{schedule.of_lora[of]:.3f}" if of in schedule.of_lora else HOLE for of in (manner, "compiled")),
            HOLE, f"{schedule.peak_bytes / GIB:.1f}", f"{schedule.peak_of_lora[manner]:.3f}" if manner in schedule.peak_of_lora else HOLE,
        ]  # fmt: skip


def _ratio(value: float, of: float | None) -> str:
    return f"{value / of:.3f}" if of else HOLE


def inference(records: Sequence[Inference]) -> Layout:
    """Return a line per narrower model and batch size: how many times faster than the unpruned one, with the range of the rounds."""
    header = ["Shape", "Model", "Weights, of the unpruned", "Runtime", "Prompt", "Batch", "First token, times as fast", "Decoding"]
    rows = [line for record in records for line in _speedup_lines(record)]
    return Layout(_caption("Inference", records), header, rows, text_columns=2)


def _speedup_lines(record: Inference) -> Iterable[list[str]]:
    sizes = {model.name: model.weight_bytes for model in record.models}
    for it in record.speedups:
        yield [
            record.shape, it.model, _ratio(sizes[it.model] or 0, record.models[0].weight_bytes), runtime_of(compiled=record.compiled),
            str(record.context), str(it.batch_size), _with_range(it.first_token), _with_range(it.decode),
        ]  # fmt: skip


def evaluation(records: Sequence[Evaluation]) -> Layout:
    """Return a line per way to ask: items per second, how many times as fast as one by one, and how much of the answers is the same."""
    header = [
        "Model", "Scoring", "How", "Batch", "dtype", "Items per second", "Times as fast", "Same answers", "Same texts",
        "Log-likelihoods within", "Peak, GiB",
    ]  # fmt: skip
    rows = [line for record in records for line in _answer_lines(record)]
    return Layout(_caption("Evaluation", records), header, rows, text_columns=3)


def _answer_lines(record: Evaluation) -> Iterable[list[str]]:
    for it in record.measurements:
        identity = [record.shape, it.scoring, it.name, str(it.batch_size), record.dtype]
        if it.items_per_s is None or it.peak_bytes is None:
            yield [*identity, "out of memory", *[HOLE] * 5]
            continue
        gap = it.largest_log_likelihood_gap
        yield [
            *identity, f"{it.items_per_s.median:.1f}", _with_range(it.speedup), _share(it.same_answers), _share(it.same_texts),
            HOLE if gap is None else f"{gap:.1g}", f"{it.peak_bytes / GIB:.1f}",
        ]  # fmt: skip


def exports(record: Exports) -> Layout:
    """Return a line per model and format: its size, its perplexity of each text, and beside it the first model's at as many bytes."""
    texts = list(dict.fromkeys(text for it in record.measured for text in it.perplexity))
    beside = record.only_quantised
    header = ["Model", "Format", "MiB", "Matrices left in f16", *(name for text in texts for name in (text, "only quantised, as large"))]
    rows = [
        [
            it.model, it.format, f"{it.bytes / MIB:.1f}", str(it.left_in_f16 or ""),
            *(_decimals(value) for text in texts for value in (it.perplexity.get(text), beside.get((it.model, it.format, text)))),
        ]
        for it in record.measured
    ]  # fmt: skip
    notes = [f"{it.model} in {it.format}: not measured: {it.refused}." for it in record.measurements if it.refused]
    notes += quantised_notes(quantised_origins(record.origins))
    return Layout(f"Perplexity per token against bytes. {_made_by([record])}", header, rows, text_columns=2, notes=notes)


def _decimals(value: float | None) -> str:
    return HOLE if value is None else f"{value:.2f}"


def _milliseconds(value: Spread) -> str:
    return f"{1e3 * value.median:.1f} ({1e3 * value.low:.0f} to {1e3 * value.high:.0f})"


def _share(value: float | None) -> str:
    return HOLE if value is None else f"{value:.1%}"


def _with_range(value: Spread | None) -> str:
    if value is None:
        return HOLE
    return f"{value.median:.2f} ({value.low:.2f} to {value.high:.2f})"
