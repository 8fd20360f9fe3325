"""Pruners that work on a finished checkpoint: the registry, with what comes with pat in it."""

from pat.pruners import known  # noqa: F401 - enters the pruners that come with pat
from pat.pruners.registry import PRUNERS, Pruner, pruner_named, register

__all__ = ["PRUNERS", "Pruner", "pruner_named", "register"]
