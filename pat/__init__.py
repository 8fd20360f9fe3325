"""Pruning-Aware Tuning: prune a language model's hidden size while tuning it.

The names a Python user needs are importable from here; they load torch only when they are used, so that the workflow can import
the light parts of the package in milliseconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pat.callback import PatCallback
    from pat.config import PatConfig
    from pat.instructions import Instructions, PadToLongest
    from pat.model import PatModel, attach
    from pat.prepare import prepare_base
    from pat.trainer import PatTrainer

__version__ = "0.1.0"
__all__ = ["Instructions", "PadToLongest", "PatCallback", "PatConfig", "PatModel", "PatTrainer", "__version__", "attach", "prepare_base"]

_HOMES = {
    "Instructions": "pat.instructions",
    "PadToLongest": "pat.instructions",
    "PatConfig": "pat.config",
    "PatModel": "pat.model",
    "PatCallback": "pat.callback",
    "PatTrainer": "pat.trainer",
    "attach": "pat.model",
    "prepare_base": "pat.prepare",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'pat' has no attribute {name!r}")
