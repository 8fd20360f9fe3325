"""The sets that models learn from and are scored on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pat.experiment_checks.raw_file import part
from pat.mistakes import nearest
from pat.sources import WORLD_TASKS, WORLD_TEXTS


def data_problems(raw: Mapping[str, Any]) -> Iterator[str]:
    """Check that the embedded world has what is asked of it, that who reads a corpus has one, and that something is scored."""
    for section, known in (("tasks", WORLD_TASKS), ("text", WORLD_TEXTS)):
        for name in part(raw, "data", section):
            if part(raw, "data", section, name).get("source") == "world" and name not in known:
                yield f"data.{section}.{name}: the embedded world has nothing of this name{nearest(name, known)}"
    pretrained = [model for model in part(raw, "models") if part(raw, "models", model, "pretrain")]
    if pretrained and "data" in raw and not part(raw, "data", "pretrain"):
        yield f"data.pretrain: is required, because models.{pretrained[0]} is pretrained"
    asked = part(raw, "data").get("calibration")
    mixed = [entry.get("of") for entry in asked if isinstance(entry, Mapping)] if isinstance(asked, list) else [asked]
    if "pretrain" in mixed and not part(raw, "data", "pretrain"):
        how = "is" if asked == "pretrain" else "mixes in"
        yield f"data.pretrain: is required, because data.calibration {how} 'pretrain'"
    scored = part(raw, "data", "tasks") or part(raw, "data", "text") or part(raw, "evaluation").get("harness_tasks")
    if "data" in raw and not scored:
        yield "data.tasks: is empty, and so are data.text and evaluation.harness_tasks: name at least one thing to evaluate on"
