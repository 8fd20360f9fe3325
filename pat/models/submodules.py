"""Modules of a model by their names, of the class that the caller needs."""

from __future__ import annotations

from torch import nn


def linear_named(module: nn.Module, name: str) -> nn.Linear:
    """Return the linear layer of a name."""
    found = module.get_submodule(name)
    assert isinstance(found, nn.Linear)
    return found
