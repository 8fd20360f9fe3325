"""What `pat benchmark tune` writes down: an entry per phase, one for each way through PAT's schedule, and a line of text for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from pat.benchmark.machine import OUT_OF_MEMORY
from pat.benchmark.settings import runtime_of
from pat.benchmark.spread import spread
from pat.settings.fields import GIB

LORA, MASKED, CLOSED, COMPACTED = "lora", "pat, before the milestone", "pat, after the milestone", "pat, after the milestone, compacted"


@dataclass
class Phase:
    """What one arm showed over all rounds: seconds per step; of each round the peak memory, and the warm-up's seconds with compiling."""

    name: str
    compiled: bool = False
    step_s: list[float] = field(default_factory=list)
    peak_bytes: list[int] = field(default_factory=list)
    warmup_s: list[float] = field(default_factory=list)
    trainable_parameters: int | None = None
    fits: bool = True


def phase_record(phase: Phase, tokens: int, floor_s: float) -> dict[str, Any]:
    """Return one phase's entry of the record; the floor is that of the unpruned model in every phase."""
    identity = {"name": phase.name, "compiled": phase.compiled}
    if not phase.fits:
        return identity | {"status": OUT_OF_MEMORY}
    middle_s = median(phase.step_s)
    return identity | {
        "status": "measured",
        "trainable_parameters": phase.trainable_parameters,
        "step_s": spread(phase.step_s),
        "warmup_s": phase.warmup_s,
        "tokens_per_s": tokens / middle_s,
        "peak_bytes": max(phase.peak_bytes),
        "share_of_floor": floor_s / middle_s,
    }


def schedule_records(entries: Sequence[dict[str, Any]], milestone_fraction: float) -> list[dict[str, Any]]:
    """Return PAT's mean step and peak memory over a whole schedule, an entry for each way through it that was measured.

    Each has its ratios to LoRA eager and compiled, where those were measured. A mask that closes at once has no phase before.
    """
    measured = {(entry["name"], entry["compiled"]): entry for entry in entries if entry["status"] == "measured"}
    loras = {runtime_of(compiled=compiled): measured[LORA, compiled] for compiled in (False, True) if (LORA, compiled) in measured}
    schedules = []
    for (name, compiled), after in measured.items():
        before = measured.get((MASKED, compiled))
        if name not in (CLOSED, COMPACTED) or (before is None and milestone_fraction):
            continue
        weighed = [(1.0 - milestone_fraction, after)] + ([(milestone_fraction, before)] if before else [])
        mean_s = sum(weight * entry["step_s"]["median"] for weight, entry in weighed)
        peak_bytes = max(entry["peak_bytes"] for _, entry in weighed)
        schedules.append(
            {
                "compiled": compiled,
                "compacted": name == COMPACTED,
                "milestone_fraction": milestone_fraction,
                "step_s": mean_s,
                "peak_bytes": peak_bytes,
                "of_lora": {manner: mean_s / lora["step_s"]["median"] for manner, lora in loras.items()},
                "peak_of_lora": {manner: peak_bytes / lora["peak_bytes"] for manner, lora in loras.items()},
            }
        )
    return schedules


def summary(record: dict[str, Any]) -> Iterator[str]:
    """Yield a line per phase, and one for each way through the whole schedule."""
    for entry in record["phases"]:
        label = f"{entry['name']} ({runtime_of(compiled=entry['compiled'])})"
        if entry["status"] != "measured":
            yield f"{label}: {entry['status']}"
            continue
        yield (
            f"{label}: {1e3 * entry['step_s']['median']:.1f} ms per step, {entry['tokens_per_s']:.0f} tokens/s, "
            f"peak {entry['peak_bytes'] / GIB:.2f} GiB, {entry['share_of_floor']:.0%} of the arithmetic floor's speed"
        )
    for schedule in record["schedules"]:
        ratios = ", ".join(
            f"{ratio:.3f} of {manner} LoRA's with peak memory {schedule['peak_of_lora'][manner]:.3f} of its"
            for manner, ratio in schedule["of_lora"].items()
        )
        how = f"{runtime_of(compiled=schedule['compiled'])}, {'compacted' if schedule['compacted'] else 'masked to the end'}"
        yield f"pat over the schedule ({how}): {1e3 * schedule['step_s']:.1f} ms per step, {ratios or 'LoRA was not measured'}"
