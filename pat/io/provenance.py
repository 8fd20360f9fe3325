"""Where a number comes from: settings, inputs, command, code and library versions, device and seed. Written into every artefact."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any

from pat.io import plugins
from pat.io.artefacts import MANIFEST, listed_files, sha256
from pat.io.storage import refusal

PROGRAM_NAMES = ("pat", "cli.py")
MODULE = "pat/__main__.py"
PACKAGE = "pruning-aware-tuning"
SOURCES = Path(__file__).resolve().parents[1]
CODE = (":(top)*.py", ":(top)*.smk", ":(top)Snakefile")
"""What of a checkout is code, for git. What an experiment's file says is recorded as settings, changed without a commit or not."""
GIT_HANGS_AFTER_S = 600
"""It answers at once; on a busy machine it may take its time, and a record without the commit would be the poorer for good."""
Inputs = Mapping[str, Path | Mapping[str, object] | None]
"""What was read, by what it is: a path, or what `described` has said of it earlier; None stands for what was not given."""
SAVED_ROWS = ".arrow"
"""Of a data set as `datasets` saves it, whose splits are folders below it."""
KNOWN_BY = (".safetensors", SAVED_ROWS)
RECORDED_PACKAGES = (
    PACKAGE,
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


def provenance(settings: Mapping[str, object], seed: int, device: str | None = None, inputs: Inputs | None = None) -> dict[str, object]:
    """Return the record of what made a result: settings, their hash, inputs, command, seed, device, code and library versions.

    `git_commit` is there where git tracks the very files that run, else `source_hash` tells them apart; `git_dirty` says whether they were
    changed since the commit, or since they were installed. None stands for what cannot be known.
    """
    commit, dirty = _code_state()
    return {
        "settings": dict(settings),
        "config_hash": config_hash(settings),
        "inputs": {name: dict(it) if isinstance(it, Mapping) else described(it) for name, it in (inputs or {}).items() if it is not None},
        "command": _command(),
        "seed": seed,
        "device": device or "cpu",
        **({"plugins": dict(loaded)} if (loaded := plugins.files()) else {}),
        **({"gpu": _gpu_name()} if device and device.startswith("cuda") else {}),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "versions": {name: found for name in RECORDED_PACKAGES if (found := _version(name))},
        "git_commit": commit,
        "git_dirty": dirty,
        **({} if commit and not dirty else {"source_hash": source_hash(SOURCES)}),
    }


def described(path: Path) -> dict[str, object]:
    """Return what a record says of an input: its path, and the checksums by which it is known. Raises UserError where it is not there."""
    try:
        return {"path": str(path), "sha256": checksums(path)}
    except OSError as error:
        raise refusal(error, path) from None


def checksums(path: Path) -> str | dict[str, str]:
    """Return a file's SHA-256 sum; of a folder those of its weights or saved rows by name, as its manifest has them where it has one."""
    if path.is_file():
        return sha256(path)
    listed = listed_files(path) if (path / MANIFEST).exists() else None
    files = sorted(listed or (file.relative_to(path).as_posix() for file in [*path.iterdir(), *path.glob(f"*/*{SAVED_ROWS}")]))
    return {name: str(listed[name]["sha256"]) if listed else _sum_of(path / name) for name in files if name.endswith(KNOWN_BY)}


def _sum_of(weights: Path) -> str:
    found = weights.stat()
    return _sum_of_file(weights.resolve(), found.st_ino, found.st_size, found.st_mtime_ns)


@lru_cache
def _sum_of_file(weights: Path, *_facts: int) -> str:
    """Return a file's sum, read once by a job that needs it for its identity and for its record."""
    return sha256(weights)


def _command() -> str | None:
    """Return the command line that this process runs, as a shell takes it; None where it is not one of the package's verbs."""
    return shlex.join(["pat", *sys.argv[1:]]) if Path(sys.argv[0]).name in PROGRAM_NAMES or sys.argv[0].endswith(MODULE) else None


def _gpu_name() -> str:
    from torch.cuda import get_device_name

    return get_device_name()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def source_hash(folder: Path) -> str:
    """Return 16 hexadecimal digits that stand for the names and contents of the Python files below a folder."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        found.update(f"{path.relative_to(folder).as_posix()} {sha256(path)}\n".encode())
    return found.hexdigest()[:16]


@cache
def _code_state() -> tuple[str | None, bool | None]:
    return code_state(SOURCES)


def code_state(sources: Path) -> tuple[str | None, bool | None]:
    """Return the commit of the code in a folder, and whether it differs from it.

    Without a commit, because git does not track these very files, whether they differ from what was installed; None where that is not
    known either.
    """
    try:
        _git(sources, "ls-files", "--error-unmatch", "--", "__init__.py")
        commit = _git(sources, "rev-parse", "HEAD")
        changed = _git(sources, "status", "--porcelain", "--untracked-files=no", "--", *CODE)
        added = _git(sources, "ls-files", "--others", "--exclude-standard", "--", "*.py")
    except (OSError, subprocess.SubprocessError):
        return None, _differs_from_installed(sources)
    return commit, bool(changed or added)


def _git(folder: Path, *arguments: str) -> str:
    """Return what git says of the repository around a folder, whatever repository the environment names."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    finished = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=GIT_HANGS_AFTER_S, env=own
    )
    return finished.stdout.strip()


def _differs_from_installed(sources: Path) -> bool | None:
    """Return whether installed sources were edited, by the checksums that the installer has noted; None where it has noted none."""
    noted = _noted_sums(sources)
    if not noted:
        return None
    found = {path: _noted_form(path) for path in sources.rglob("*.py")}
    return found != noted


def _noted_sums(sources: Path) -> dict[Path, str]:
    try:
        files = distribution(PACKAGE).files or []
    except PackageNotFoundError:
        return {}
    located: list[tuple[Path, Any]] = [(Path(str(file.locate())).resolve(), file.hash) for file in files if file.name.endswith(".py")]
    return {path: noted.value for path, noted in located if noted is not None and noted.mode == "sha256" and path.is_relative_to(sources)}


def _noted_form(path: Path) -> str:
    return urlsafe_b64encode(bytes.fromhex(sha256(path))).decode().rstrip("=")
