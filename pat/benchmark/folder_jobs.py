"""`pat benchmark prune` and `pat benchmark merge`: what a pruner, or the merge, costs on a model of a shape, in time and memory.

Weights, text and adapter are random and written to a scratch folder first; what is measured is the job that `pat prune` and
`pat merge` run, checksums and the check of the logits included.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pat.benchmark import machine
from pat.benchmark.candidates import parameter_shapes
from pat.benchmark.random_adapter import write_random_adapter
from pat.benchmark.random_checkpoint import DTYPE, write_random_checkpoint, write_random_text
from pat.benchmark.settings import CHECKPOINT_BYTES, MergeBenchmark, ModelShape, PruneBenchmark
from pat.benchmark.widths import narrowed_at, tell_budgets
from pat.checkpoints import checkpoint
from pat.checkpoints.merge import merge
from pat.data.calibration import Calibration
from pat.data.calibration_size import SEQUENCE_LENGTH, SEQUENCES
from pat.errors import SettingError, UserError
from pat.io import artefacts
from pat.io.marks import KINDS, check_replaceable
from pat.io.progress import say
from pat.io.provenance import provenance
from pat.machine.device import resolve_device
from pat.machine.out_of_memory import lacks_memory
from pat.machine.threads import threads_given_back
from pat.models.on_paper import PaperModel
from pat.models.width import target_width
from pat.pruners.budget import ratio_on
from pat.pruners.pruning import prune, pruner_for
from pat.settings.budget import Budget
from pat.settings.config import PatConfig
from pat.settings.fields import GIB

SCHEMA = 1
MOST_TOKENS = SEQUENCES * SEQUENCE_LENGTH
SHORTEST_SCHEDULE = 6
"""Steps after which a mask has settled and closed."""


@dataclass(frozen=True)
class Cost:
    """What one job took: seconds, and the most memory beyond what was held at its start, in bytes; no GPU, no GPU memory."""

    wall_s: float
    peak_host_bytes: int
    peak_gpu_bytes: int | None


@threads_given_back
def benchmark_prune(
    shape: ModelShape, pruner: str, asked: float | Budget | None, settings: PruneBenchmark, seed: int, out: Path, *, force: bool = False
) -> dict[str, Any]:
    """Measure a pruner on a shape, write the record to `out` and return it. Raises UserError as `pat prune` does."""
    check_replaceable(out, KINDS["benchmark prune"], force=force)
    chosen, sizes = pruner_for(pruner, asked, settings.prune), PaperModel.of(shape)
    if (reason := chosen.reason_not_to(sizes.family)) is not None:
        raise UserError(f"--pruner {pruner}: is not possible for a {shape.family} model: {reason}")
    ratio = ratio_on(lambda: (sizes, CHECKPOINT_BYTES), pruner, asked, settings.prune, settings.align)
    if chosen.narrows:
        target_width(shape.hidden_size, shape.heads, ratio, settings.align)
    elif chosen.size is not None:
        chosen.size(sizes, ratio, settings.prune, settings.align)
    device = _prepared(settings)
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch, "base")
        write_random_checkpoint(shape, base, seed, device)
        text = write_random_text(Path(scratch, "text.jsonl"), shape.vocab_size, settings.calibration_tokens or MOST_TOKENS, seed)
        calibration = Calibration(text, settings.calibration_tokens, seed, device)

        def job() -> dict[str, Any]:
            threads = torch.get_num_threads()
            return prune(base, pruner, ratio, settings.align, Path(scratch, "pruned"), calibration, threads, settings.prune)

        said = {"pruner": pruner, "ratio": ratio}
        return _written("prune", shape, said, settings, *_measured(job, device), checkpoint.weights_size(base), seed, device, out)


@threads_given_back
def benchmark_merge(shape: ModelShape, settings: MergeBenchmark, seed: int, out: Path, *, force: bool = False) -> dict[str, Any]:
    """Measure the merge of a PAT adapter on a shape, write the record to `out` and return it. Raises UserError on sizes that cannot be."""
    check_replaceable(out, KINDS["benchmark merge"], force=force)
    ratio = narrowed_at(shape, settings.ratio, settings.align, CHECKPOINT_BYTES, settings.hio_rank)
    tell_budgets("benchmark merge", shape, [settings.ratio], settings.align, CHECKPOINT_BYTES)
    device = _prepared(settings)
    pat_config = PatConfig(
        pruning_ratio=ratio, hio_rank=settings.hio_rank, lora_rank=settings.lora_rank, align=settings.align,
        total_steps=SHORTEST_SCHEDULE, seed=seed,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        base, adapter = Path(scratch, "base"), Path(scratch, "adapter")
        config = write_random_checkpoint(shape, base, seed, device)
        try:
            write_random_adapter(config, parameter_shapes(config), pat_config, adapter)
        except SettingError as error:
            raise UserError(f"settings: {error}") from None
        found, cost = _measured(lambda: merge(base, adapter, Path(scratch, "merged")), device)
        return _written("merge", shape, {}, settings, found, cost, checkpoint.weights_size(base), seed, device, out)


def _prepared(settings: PruneBenchmark | MergeBenchmark) -> str:
    """Set torch's threads and return the device."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    return resolve_device(settings.device)


def _measured(job: Callable[[], dict[str, Any]], device: str) -> tuple[dict[str, Any], Cost]:
    """Run the job once; return its record and what it took. Raises UserError where it needs more memory than there is."""
    machine.release(device)
    machine.reset_peak(device)
    found: list[dict[str, Any]] = []
    held_gpu, held_host = machine.held_bytes(device), machine.reset_host_peak()
    try:
        wall_s = machine.seconds(lambda: found.append(job()), device)
    except RuntimeError as error:
        if not lacks_memory(error):
            raise
        raise UserError(f"the job does not fit the memory of this machine: {error}") from None
    gpu = machine.peak_bytes(device) - held_gpu if device == "cuda" else None
    return found[0], Cost(wall_s, machine.host_peak_bytes() - held_host, gpu)


def _written(
    kind: str,
    shape: ModelShape,
    said: dict[str, object],
    settings: PruneBenchmark | MergeBenchmark,
    found: dict[str, Any],
    cost: Cost,
    copy_bytes: int,
    seed: int,
    device: str,
    out: Path,
) -> dict[str, Any]:
    """Write and return the record of a job on one copy of a model, from the job's own record and its cost."""
    counts = found["parameters"]
    record = {
        "schema": SCHEMA,
        "kind": kind,
        "weights": "random",
        "shape": shape.model_dump(),
        **said,
        "settings": settings.model_dump(mode="json"),
        "parameters": {name: count["unique"] for name, count in counts.items()},
        "share_removed": 1.0 - counts["after"]["unique"] / counts["before"]["unique"],
        "hidden_size": found["hidden_size"],
        "kl_on_text": found["kl_on_text"],
        "kl_dtype": found["kl_dtype"],
        "logit_gap": found["logit_gap"],
        "logit_size": found["logit_size"],
        "wall_s": cost.wall_s,
        "copy_bytes": copy_bytes,
        "peak_host_bytes": cost.peak_host_bytes,
        "peak_host_of_copy": cost.peak_host_bytes / copy_bytes,
        "peak_gpu_bytes": cost.peak_gpu_bytes,
        "peak_gpu_of_copy": None if cost.peak_gpu_bytes is None else cost.peak_gpu_bytes / copy_bytes,
        "memory_measure": machine.HOST_MEASURE,
        "dtype": str(DTYPE).removeprefix("torch."),
        "machine": machine.description(device),
        "clocks": machine.clocks(device),
        "provenance": provenance({"shape": shape.model_dump(), **said} | settings.model_dump(mode="json"), seed, device),
    }
    artefacts.write_json(out, record)
    say(summary(record))
    return record


def summary(record: dict[str, Any]) -> str:
    """Return a line on what the job took."""
    gpu = record["peak_gpu_bytes"]
    on_gpu = "" if gpu is None else f", on the GPU {gpu / GIB:.2f} GiB, {record['peak_gpu_of_copy']:.2f} copies"
    return (
        f"{record.get('pruner', record['kind'])}: {record['wall_s']:.1f} s on a model of {record['copy_bytes'] / GIB:.2f} GiB, "
        f"{record['share_removed']:.1%} of it removed; peak memory {record['peak_host_bytes'] / GIB:.2f} GiB, "
        f"{record['peak_host_of_copy']:.2f} copies{on_gpu}"
    )
