"""Compiling a stock model layer by layer: its decoder layers are alike, so that one graph serves them all."""

from __future__ import annotations

import importlib.util
import shutil
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from transformers import PreTrainedModel

from pat.families.known import family_of
from pat.io.progress import say
from pat.models.reshaped import ReshapedConfig

if TYPE_CHECKING:
    from pat.training.request import TuningRequest

PAYS_FROM_STEPS = 1000
"""Building the graphs of a 7B model costs some 25 seconds, and again once it is compacted; see docs/performance.md."""
C_COMPILERS = ("cc", "gcc", "clang")
_compiled: WeakSet[PreTrainedModel] = WeakSet()
"""torch tells nobody which modules are compiled."""


def compile_layers(stock: PreTrainedModel, *, dynamic: bool | None = None) -> None:
    """Compile each decoder layer in place; `dynamic` as torch.compile has it. What changes a layer has its graph built again."""
    layers: Any = stock.get_submodule(family_of(stock.config).layers)
    for layer in layers:
        layer.compile(dynamic=dynamic)
    _compiled.add(stock)


def is_compiled(stock: PreTrainedModel) -> bool:
    """Return whether the model's layers have been compiled here."""
    return stock in _compiled


def compiles(request: TuningRequest) -> bool:
    """Return whether a tuning compiles its layers; where it is left to this and does not, say why."""
    reason = reason_not_to(request)
    if reason and request.tuning.compile == "auto":
        say(f"tune: the layers are not compiled: {reason}")
    return reason is None


def reason_not_to(request: TuningRequest) -> str | None:
    """Return why a tuning does not compile its layers, None where it does: where the settings say so, or where that pays."""
    if request.tuning.compile != "auto":
        return None if request.tuning.compile else "tuning.compile is false"
    if request.device == "cpu":
        return "that is for a GPU"
    if request.sharded:
        return "the base is in shards"
    if isinstance(request.model_config, ReshapedConfig) and not request.model_config.layers_alike:
        return "they differ in size, and each would be built by itself"
    if request.steps < PAYS_FROM_STEPS:
        return f"with {request.steps} steps it would cost more than it gains; it pays from some {PAYS_FROM_STEPS} on"
    return _missing_tool()


def _missing_tool() -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed"
    if not any(shutil.which(compiler) for compiler in C_COMPILERS):
        return f"it takes a C compiler, and there is none of {', '.join(C_COMPILERS)}"
    return None
