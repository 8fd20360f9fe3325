"""LayerNorms on a stream of which some channels are closed: what the stock norm of the living channels gives, computed on all of them.

A LayerNorm subtracts the mean of its channels and adds a bias to each. Of a model without its dead channels it is the mean of the living
ones that is subtracted, and no dead channel has a bias. Both are made so here, for any gate g between: before the norm x − g·(Σx/Σg),
whose sum is zero, so that the norm has nothing left to subtract; behind it (1 − g)·β is taken off. With all gates open that is the norm
itself. Axes: D channels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from pat.families.known import family_of

Gate = Callable[[], Tensor | None]
"""Returns how far each channel is open, (D,); None where the norms are to be as they are."""


def follow_the_gate(model: PreTrainedModel, gate: Gate) -> list[RemovableHandle]:
    """Make all norms on the stream follow a gate, in place; nothing where the family's norms subtract no mean. Returns what undoes it."""
    family = family_of(model.config)
    if not family.subtracts_mean:
        return []
    norms = [model.get_submodule(name) for name in family.stream_norms(model.config.num_hidden_layers)]
    return [handle for norm in norms for handle in _follow(norm, gate)]


def _follow(norm: nn.Module, gate: Gate) -> tuple[RemovableHandle, RemovableHandle]:
    # partials, which a copy of the model copies with it: a closure would go on following the gate of the original
    return norm.register_forward_pre_hook(partial(_centre, gate)), norm.register_forward_hook(partial(_silence, gate))


def _centre(gate: Gate, _norm: nn.Module, inputs: tuple[Any, ...]) -> tuple[Tensor] | None:
    gate_D = gate()
    return None if gate_D is None else (centred(inputs[0], gate_D),)


def _silence(gate: Gate, norm: Any, _inputs: Any, output: Tensor) -> Tensor | None:
    gate_D = gate()
    return None if gate_D is None or norm.bias is None else output - (1.0 - gate_D).to(output) * norm.bias.to(output)


def centred(x: Tensor, gate_D: Tensor) -> Tensor:
    """Return x − g·(Σx/Σg) on the last axis, in x's dtype; sums are in fp32 at least. Where all gates are closed that is x."""
    wide = torch.promote_types(x.dtype, torch.float32)
    mean = x.sum(-1, keepdim=True, dtype=wide) / gate_D.sum(dtype=wide).clamp_min(torch.finfo(wide).tiny)
    return x - (mean * gate_D.to(wide)).to(x.dtype)
