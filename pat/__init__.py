"""Pruning-Aware Tuning: prune a language model's hidden size while tuning it.

The names a Python user needs are importable from here; they load torch only when they are used, so that the workflow can import
the light parts of the package in milliseconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pat.bases.prepare import prepare_base
    from pat.data.instructions import Instructions, PadToLongest
    from pat.method.callback import PatCallback
    from pat.method.model import PatModel, attach
    from pat.settings.budget import Budget
    from pat.settings.config import PatConfig
    from pat.training.trainer import PatTrainer

__version__ = "0.1.0"
__all__ = [
    "Budget",
    "Instructions",
    "PadToLongest",
    "PatCallback",
    "PatConfig",
    "PatModel",
    "PatTrainer",
    "__version__",
    "attach",
    "prepare_base",
]

_HOMES = {
    "Budget": "pat.settings.budget",
    "Instructions": "pat.data.instructions",
    "PadToLongest": "pat.data.instructions",
    "PatConfig": "pat.settings.config",
    "PatModel": "pat.method.model",
    "PatCallback": "pat.method.callback",
    "PatTrainer": "pat.training.trainer",
    "attach": "pat.method.model",
    "prepare_base": "pat.bases.prepare",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'pat' has no attribute {name!r}")
