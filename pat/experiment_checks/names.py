"""Names that become parts of paths."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pat.experiment_checks.raw_file import part
from pat.mistakes import shown

SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
CORPUS_NAME = "pretrain"  # the pretraining corpus lies beside the held-out texts
RESERVED_MODELS = ("data", "models", "rotated", "refitted", "tables", "figures", "logs", "benchmark", "benchmarks", "text")
RESERVED_EXPERIMENTS = ("reference",)


def name_problems(raw: Mapping[str, Any]) -> Iterator[str]:
    """Check that every name can be a folder's or a file's, and is not that of something else in the results."""
    named = [("name", raw.get("name"))]
    for section in (("models",), ("methods",), ("data", "tasks"), ("data", "text"), ("tables", "ablations"), ("benchmark", "shapes")):
        named += [(".".join(section), name) for name in part(raw, *section)]
    for field, name in named:
        if isinstance(name, str) and not SAFE_NAME.fullmatch(name):
            yield (
                f"{field}: the name {shown(name)} is not allowed: it becomes part of a path and must be of letters, digits, "
                "'.', '_' and '-', at most 64, the first a letter or digit"
            )
    reserved = {"models": RESERVED_MODELS, "name": RESERVED_EXPERIMENTS, "data.text": (CORPUS_NAME,)}
    for field, name in named:
        if name in reserved.get(field, ()):
            yield f"{field}: the name {shown(name)} is reserved for something else in the results; choose another"
