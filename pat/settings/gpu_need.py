"""Whether a command could work on a GPU, by its arguments, before torch is imported: one that cannot leaves the machine's GPUs alone.

Where a command names its device twice the last counts, as it does for the command. What is written wrongly is the command's to tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from pat.errors import UserError
from pat.io.artefacts import parse_json
from pat.io.yaml_files import read_yaml

ON_GPU_VERBS = ("pretrain", "prepare", "tune", "search-rate", "prune", "rotate", "refit-readers", "evaluate", "benchmark")
"""All others work on the CPU, and so leave the machine's GPUs to those that do not."""
DEVICE_OF_SETTINGS: Mapping[str, tuple[str, ...]] = {
    "pretrain": ("device",),
    "evaluate": ("device",),
    "benchmark": ("device",),
    "tune": ("tuning", "device"),
    "search-rate": ("tuning", "device"),
}
"""Where in their settings these verbs are told the device; the others have an option for it."""


def may_need_gpu(arguments: Sequence[str]) -> bool:
    """Return whether a command could work on a GPU: it does not if it only handles files, or its settings say the CPU."""
    verb = next(iter(arguments), "")
    if verb not in ON_GPU_VERBS or "--help" in arguments:
        return False
    if verb == "prune" and _option(arguments, "--calibration") is None:
        return False  # nothing is measured
    keys = DEVICE_OF_SETTINGS.get(verb)
    return (_option(arguments, "--device") if keys is None else _setting(_option(arguments, "--settings"), keys)) != "cpu"


def _option(arguments: Sequence[str], name: str) -> str | None:
    """Return what an option is given, the last time that it is; None where it is not."""
    given = [after if it == name else it.partition("=")[2] for it, after in pairwise([*arguments, ""]) if it.partition("=")[0] == name]
    return given[-1] if given else None


def _setting(text_or_path: str | None, keys: Sequence[str]) -> object:
    """Return one value of settings as text or in a file; None where they do not have it, or cannot be read."""
    try:
        found: Any = _parsed(text_or_path or "{}")
    except (UserError, OSError, ValueError):
        return None
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _parsed(text_or_path: str) -> object:
    if text_or_path.lstrip().startswith("{"):
        return parse_json(text_or_path, "settings")
    path = Path(text_or_path)
    return read_yaml(path) if path.is_file() else None
