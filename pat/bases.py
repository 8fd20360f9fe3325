"""Bases of the residual stream, found on calibration text: which directions matter, the most important first.

Owns the statistics and their eigenvectors. Putting a model into a basis is rotation.py's.
Axes: B batch, T tokens, D channels, N tokens that count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pat.families import family_of

Visit = Callable[[str, Tensor], None]
"""What is done with a norm's name and its input, (N, D)."""


@dataclass(frozen=True)
class Basis:
    """Orthonormal directions as columns and how much each matters, descending; both fp64."""

    directions_DD: Tensor
    importance_D: Tensor

    def captured(self, width: int) -> float:
        """Return the leading `width` directions' share of the whole importance."""
        return (self.importance_D[:width].sum() / self.importance_D.sum()).item()


def pca_basis(model: PreTrainedModel, batches: Iterable[dict[str, Tensor]]) -> Basis:
    """Return the principal directions of what the norms hand on."""
    return principal(second_moment(model, batches))


def root_mean_square(x_ND: Tensor, eps: float) -> Tensor:
    """Return what an RMS norm divides by, √(mean of x² + eps), (N, 1) (docs/method.md, equation 2)."""
    return (x_ND.square().mean(1, keepdim=True) + eps).sqrt()


@torch.no_grad()
def second_moment(model: PreTrainedModel, batches: Iterable[dict[str, Tensor]]) -> Tensor:
    """Return Σ x·xᵀ, (D, D) in fp64, where x is every input of a norm on the stream, divided by its RMS.

    So every token and every norm has the same weight, and a few tokens of huge norm do not decide alone. Not centred: an RMS norm
    does not centre either. The sum is taken in fp64.
    """
    moment_DD = torch.zeros(model.config.hidden_size, model.config.hidden_size, dtype=torch.float64, device=model.device)

    def add(_norm: str, x_ND: Tensor) -> None:
        wide_ND = x_ND.double()
        normed_ND = wide_ND * (wide_ND.square().mean(1, keepdim=True) + model.config.rms_norm_eps).rsqrt()
        moment_DD.addmm_(normed_ND.T, normed_ND)

    visit_norm_inputs(model, batches, add)
    return moment_DD


@torch.no_grad()
def visit_norm_inputs(model: PreTrainedModel, batches: Iterable[dict[str, Tensor]], visit: Visit) -> None:
    """Run the model on the text and hand `visit` each norm on the stream by its name, with the tokens (N, D) that reach it."""
    body: Any = model.base_model
    for batch in batches:
        with _norm_inputs(model, batch["attention_mask"].bool().to(model.device), visit):
            body(**{name: tensor.to(model.device) for name, tensor in batch.items()}, use_cache=False)


@contextmanager
def _norm_inputs(model: PreTrainedModel, mask_BT: Tensor, visit: Visit) -> Iterator[None]:
    """While open, hand `visit` the tokens (N, D) that reach each norm on the stream, without padding."""

    def on_input(norm: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _norm, inputs: visit(norm, inputs[0][mask_BT])

    norms = family_of(model.config).stream_norms(model.config.num_hidden_layers)
    hooks = [model.get_submodule(norm).register_forward_pre_hook(on_input(norm)) for norm in norms]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def principal(moment_DD: Tensor) -> Basis:
    """Return the eigenvectors of a symmetric matrix by descending eigenvalue, each with its largest entry positive."""
    values_D, vectors_DD = torch.linalg.eigh(moment_DD)
    values_D, vectors_DD = values_D.flip(0).clamp(min=0), vectors_DD.flip(1)
    return Basis(signed(vectors_DD), values_D)


def signed(directions_DD: Tensor) -> Tensor:
    """Return the columns with their largest entry positive: a direction's sign is arbitrary, and equal inputs shall give equal bytes."""
    largest_1D = directions_DD.gather(0, directions_DD.abs().argmax(0, keepdim=True))
    return (directions_DD * largest_1D.sign()).contiguous()
