"""Judges a tuning run's milestone from the `health` entry of its record: was the count exact, did the loss jump, is the mask 0/1?

Draws nothing. Records of earlier versions do not have how many gates were undecided.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SHOCK, UNDECIDED = "SHOCK", "UNDECIDED"
SHOCK_SHARE, SHOCK_NATS = 0.2, 0.1
"""A rise of the cross-entropy beyond SHOCK_NATS + SHOCK_SHARE × its value before the milestone is called a shock.

Batches alone move it less; shocks that were seen in trials at least doubled it (0.11 to 2.34, 0.82 to 1.84, 2.2 to 5.4).
"""


def verdict(health: Mapping[str, Any] | None, width: int) -> str:
    """Return one sentence on the milestone: whether exactly `width` channels were kept, the loss jumped, and gates were open half-way."""
    if not health or health.get("milestone_step") is None:
        return "no milestone: nothing was pruned while tuning"
    kept, before, after = (health.get(key) for key in ("kept_at_milestone", "loss_before_milestone", "loss_after_milestone"))
    if kept is None:
        count = "count at the milestone unknown (nothing logged after it)"
    else:
        count = f"count exact ({width} kept)" if kept == width else f"COUNT OFF: {kept} kept, {width} asked for"
    half_open = f"; {UNDECIDED}: {health['undecided']} gates half open at the end, rounded in the merge" if health.get("undecided") else ""
    if before is None or after is None:
        return f"milestone at step {health['milestone_step']}: {count}; losses around it were not logged{half_open}"
    said = f"{SHOCK if is_shock(before, after) else 'no shock'} (cross-entropy {before:.2f} before, at most {after:.2f} after)"
    return f"milestone at step {health['milestone_step']}: {count}; {said}{half_open}"


def overlaps(health: Mapping[str, Any] | None) -> tuple[float, float] | None:
    """Return which share of a trained mask's channels the Fisher order keeps too, and which any mask has; None where it is not known."""
    found, by_chance = ((health or {}).get(key) for key in ("fisher_overlap", "chance_overlap"))
    return None if found is None or by_chance is None else (float(found), float(by_chance))


def choice(health: Mapping[str, Any] | None) -> str:
    """Return that in words, nothing where it is not known."""
    known = overlaps(health)
    return f"of the mask's channels {known[0]:.0%} are the Fisher order's, by chance {known[1]:.0%}" if known else ""


def judgement(health: Mapping[str, Any] | None, width: int) -> str:
    """Return the sentence on the milestone, and behind it the one on the mask's choice, where that is known."""
    return "; ".join(filter(None, [verdict(health, width), choice(health)]))


def is_shock(before: float, after: float) -> bool:
    """Return whether the cross-entropy after the milestone is beyond what batches alone explain."""
    return after - before > SHOCK_NATS + SHOCK_SHARE * before


def is_healthy(health: Mapping[str, Any] | None, width: int) -> bool | None:
    """Return whether the count was exact, the milestone no shock and every gate decided; None without a milestone or a log of it."""
    keys = ("kept_at_milestone", "loss_before_milestone", "loss_after_milestone")
    if not health or any(health.get(key) is None for key in keys):
        return None
    calm = not is_shock(health["loss_before_milestone"], health["loss_after_milestone"])
    return bool(health["kept_at_milestone"] == width) and calm and not health.get("undecided")
