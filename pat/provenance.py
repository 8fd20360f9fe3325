"""Where a number comes from: settings' hash, code version, library versions, device and seed. Written into every artefact."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

RECORDED_PACKAGES = (
    "pruning-aware-tuning",
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "tokenizers",
    "lm-eval",
    "safetensors",
)


def config_hash(settings: object) -> str:
    """Return 16 hexadecimal digits that are equal for equal settings, whatever the order of their keys."""
    canonical = json.dumps(settings, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def provenance(settings: Mapping[str, object], seed: int, device: str | None = None) -> dict[str, object]:
    """Return the record of what made a result: settings, their hash, seed, device, code and library versions."""
    commit, dirty = _git_state()
    return {
        "settings": dict(settings),
        "config_hash": config_hash(settings),
        "seed": seed,
        "device": device or "cpu",
        "machine": platform.machine(),
        "python": platform.python_version(),
        "versions": {name: found for name in RECORDED_PACKAGES if (found := _version(name))},
        "git_commit": commit,
        "git_dirty": dirty,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@cache
def _git_state() -> tuple[str | None, bool | None]:
    """Return the commit of the code that runs and whether tracked files differ from it; None where it is no checkout."""
    here = Path(__file__).resolve().parent
    try:
        commit = _git(here, "rev-parse", "HEAD")
        tracked_changes = _git(here, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return None, None
    return commit, bool(tracked_changes)


def _git(folder: Path, *arguments: str) -> str:
    finished = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=30)
    return finished.stdout.strip()
