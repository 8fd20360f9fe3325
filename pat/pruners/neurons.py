"""Feed-forward neurons: how much each one matters to the loss on text, and a model with some of them silent.

Axes: B rows, T tokens, I neurons of a layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pat.families.known import family_of, neurons
from pat.method.importance import text_loss
from pat.models.hooks import removed_behind
from pat.pruners.units import output_layers


def neuron_information(model: PreTrainedModel, batches: Sequence[Mapping[str, Tensor]], layers: Sequence[int]) -> dict[int, Tensor]:
    """Return F = Σ_rows (∂L_row/∂g)² of each neuron's gate g at g = 1, (I,) in fp64 by layer: its empirical Fisher information.

    A neuron at a minimum of the loss changes it by ½·F when it goes, to second order (optimal brain damage). L_row is the summed
    next-token cross-entropy of a row.
    """
    model.requires_grad_(False)
    width = neurons(model.config)
    found = {layer: torch.zeros(width, dtype=torch.float64, device=model.device) for layer in layers}
    for batch in batches:
        gates = {layer: torch.ones(len(batch["input_ids"]), width, device=model.device, requires_grad=True) for layer in layers}
        with gated(model, gates):
            gradients = torch.autograd.grad(text_loss(model, batch), [gates[layer] for layer in layers])
        for layer, gradient_BI in zip(layers, gradients, strict=True):
            found[layer] += gradient_BI.double().square().sum(0)
    return {layer: information_I.cpu() for layer, information_I in found.items()}


@contextmanager
def gated(model: PreTrainedModel, gates: Mapping[int, Tensor]) -> Iterator[None]:
    """While open, multiply what each layer's neurons say by their gates: (B, I), or (I,) for all rows alike."""
    family = family_of(model.config)
    outputs = {layer: model.get_submodule(family.in_layer(layer, output_layers(family)["neurons"])) for layer in gates}
    with removed_behind(outputs[layer].register_forward_pre_hook(_multiplying(gate)) for layer, gate in gates.items()):
        yield


def _multiplying(gate: Tensor) -> Any:
    def multiply(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        values, factor = inputs[0], gate.to(inputs[0].device, inputs[0].dtype)
        if gate.dim() == 1:
            return (values * factor,)
        rows_BTI = values.view(len(gate), -1, values.shape[-1])  # some layers have no axis of their own for tokens
        return ((rows_BTI * factor[:, None]).view_as(values),)

    return multiply
