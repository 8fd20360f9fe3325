"""A tuning that a pruning cuts in two: how many of its steps lie before the cut, how many after it, and that these see other rows."""

from __future__ import annotations

from pat.settings.jobs import TuneJob, TuningSettings


def in_two(job: TuneJob) -> tuple[TuningSettings, TuningSettings]:
    """Return the recipes before and after the cut, which stands where PAT's milestone would: at `pat.milestone_fraction` of the whole.

    The second takes the rows in another order: in the same one it would begin with those of the first again, which a tuning in one piece
    meets once in an epoch. Of a whole that is given in steps the first part has one at least. A part that is empty or shorter than its
    warm-up is returned as it is: `too_short` tells it, and of a whole that is given in epochs `pat.training.fit`.
    """
    whole = job.tuning
    if whole.max_steps is not None:
        steps = max(1, job.pat.milestone_of(whole.max_steps))
        lengths: tuple[dict[str, object], ...] = ({"max_steps": steps}, {"max_steps": whole.max_steps - steps})
    else:
        cut = job.pat.milestone_fraction
        lengths = {"share": (0.0, cut)}, {"share": (cut, 1.0)}
    lengths[1]["data_order"] = whole.data_order + 1
    before, after = (whole.model_copy(update=length) for length in lengths)
    return before, after


def too_short(job: TuneJob) -> str | None:
    """Return in words why a tuning cannot be cut in two where it is; None where it can, as far as its length is known without the rows."""
    whole = job.tuning
    refused = f"with pat.milestone_fraction {job.pat.milestone_fraction:g} is not allowed: leaves"
    for part, place in zip(in_two(job), ("before", "after"), strict=True):
        if part.max_steps is None:
            if part.share[0] == part.share[1]:
                return f"tuning.epochs {whole.epochs:g} {refused} nothing {place} the cut"
        elif part.max_steps < max(1, whole.warmup_steps):
            least = f"tuning.warmup_steps, {whole.warmup_steps}" if whole.warmup_steps > 1 else "one step"
            return f"tuning.max_steps {whole.max_steps} {refused} {part.max_steps} {place} the cut, less than {least}"
    return None
