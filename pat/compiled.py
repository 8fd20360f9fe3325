"""Compiling a stock model layer by layer: its decoder layers are alike, so that one graph serves them all."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel

from pat.families import family_of


def compile_layers(stock: PreTrainedModel, *, dynamic: bool | None = None) -> None:
    """Compile each decoder layer in place; `dynamic` as torch.compile has it. What changes a layer has its graph built anew."""
    layers: Any = stock.get_submodule(family_of(stock.config).layers)
    for layer in layers:
        layer.compile(dynamic=dynamic)
