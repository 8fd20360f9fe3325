"""Where a number comes from: settings, inputs, command, code and library versions, device and seed. Written into every artefact."""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pat.artefacts import MANIFEST, listed_files, sha256

PROGRAM_NAMES = ("pat", "cli.py")
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


def provenance(
    settings: Mapping[str, object], seed: int, device: str | None = None, inputs: Mapping[str, Path | None] | None = None
) -> dict[str, object]:
    """Return the record of what made a result: settings, their hash, inputs, command, seed, device, code and library versions.

    `inputs` are the files and model or adapter folders that were read, by what they are; None stands for one that was not given.
    """
    commit, dirty = _git_state()
    return {
        "settings": dict(settings),
        "config_hash": config_hash(settings),
        "inputs": {name: {"path": str(path), "sha256": checksums(path)} for name, path in (inputs or {}).items() if path is not None},
        "command": _command(),
        "seed": seed,
        "device": device or "cpu",
        **({"gpu": _gpu_name()} if device and device.startswith("cuda") else {}),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "versions": {name: found for name in RECORDED_PACKAGES if (found := _version(name))},
        "git_commit": commit,
        "git_dirty": dirty,
    }


def checksums(path: Path) -> str | dict[str, str]:
    """Return a file's SHA-256 sum; of a folder those of its weights by name, as its manifest has them where there is one."""
    if path.is_file():
        return sha256(path)
    listed = listed_files(path) if (path / MANIFEST).exists() else None
    weights = sorted(listed or (file.name for file in path.iterdir()))
    return {name: str(listed[name]["sha256"]) if listed else sha256(path / name) for name in weights if name.endswith(".safetensors")}


def _command() -> str | None:
    """Return the command line that this process runs, as a shell takes it; None where it is not one of the package's verbs."""
    return shlex.join(["pat", *sys.argv[1:]]) if Path(sys.argv[0]).name in PROGRAM_NAMES else None


def _gpu_name() -> str:
    from torch.cuda import get_device_name

    return get_device_name()


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
