"""Layers that write nothing."""

from __future__ import annotations

from typing import Any

import torch


def make_identity(model: Any, layer: int) -> None:
    """Let a layer write nothing to the stream."""
    with torch.no_grad():
        for name, parameter in model.model.layers[layer].named_parameters():
            if "o_proj" in name or "down_proj" in name:
                parameter.zero_()
