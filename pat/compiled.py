"""Compiling a stock model layer by layer: its decoder layers are alike, so that one graph serves them all."""

from __future__ import annotations

import importlib.util
import shutil
from typing import Any, Literal
from weakref import WeakSet

from transformers import PreTrainedModel

from pat.families import family_of
from pat.progress import say

PAYS_FROM_STEPS = 1000
"""Building the graphs of a 7B model costs some 25 seconds, and again once it is compacted; see docs/performance.md."""
C_COMPILERS = ("cc", "gcc", "clang")
_compiled: WeakSet[PreTrainedModel] = WeakSet()
"""torch tells nobody which modules are compiled."""


def compile_layers(stock: PreTrainedModel, *, dynamic: bool | None = None) -> None:
    """Compile each decoder layer in place; `dynamic` as torch.compile has it. What changes a layer has its graph built anew."""
    for layer in _layers(stock):
        layer.compile(dynamic=dynamic)
    _compiled.add(stock)


def is_compiled(stock: PreTrainedModel) -> bool:
    """Return whether the model's layers have been compiled here."""
    return stock in _compiled


def _layers(stock: PreTrainedModel) -> Any:
    return stock.get_submodule(family_of(stock.config).layers)


def compiles(choice: Literal["auto"] | bool, stock: PreTrainedModel, device: str, steps: int, *, sharded: bool) -> bool:
    """Return whether a tuning of so many steps compiles its layers; where it is left to this and does not, say why."""
    if choice != "auto":
        return choice
    reason = _obstacle(stock, device, steps, sharded=sharded)
    if reason:
        say(f"tune: the layers are not compiled: {reason}")
    return reason is None


def _obstacle(stock: PreTrainedModel, device: str, steps: int, *, sharded: bool) -> str | None:
    if device == "cpu":
        return "that is for a GPU"
    if sharded:
        return "the base is in shards"
    if len({tuple(parameter.shape for parameter in layer.parameters()) for layer in _layers(stock)}) > 1:
        return "they differ in size, and each would be built by itself"
    if steps < PAYS_FROM_STEPS:
        return f"with {steps} steps it would cost more than it gains; it pays from some {PAYS_FROM_STEPS} on"
    return _missing_tool()


def _missing_tool() -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed"
    if not any(shutil.which(compiler) for compiler in C_COMPILERS):
        return f"it takes a C compiler, and there is none of {', '.join(C_COMPILERS)}"
    return None
