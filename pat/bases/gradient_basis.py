"""The basis in which cutting the stream costs the loss least: directions that both vary and matter to it.

Owns the moment of the gradients and how it is joined with the activations'. Axes: B rows, T tokens, D channels, N tokens that count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pat.bases.directions import Basis, signed
from pat.families.known import family_of, norm_eps
from pat.method.importance import text_loss
from pat.models.hooks import removed_behind
from pat.models.second_moment import root_mean_square


def gradient_basis(model: PreTrainedModel, batches: Iterable[dict[str, Tensor]]) -> Basis:
    """Return the directions of `joined` for what the norms pass on and what the loss feels of it."""
    return joined(*moments(model, batches))


def joined(activations_DD: Tensor, gradients_DD: Tensor) -> Basis:
    """Return Q from QR of C^½·V, where V are the eigenvectors of C^½·G·C^½, C and G the moments of activations and gradients.

    For every width the leading directions span those subspaces of the stream that carry the largest first-order change of the loss,
    whatever the units of a channel. The importance is the eigenvalues (docs/method.md, "What this project adds").
    """
    values_D, vectors_DD = torch.linalg.eigh(activations_DD)
    root_DD = vectors_DD * values_D.clamp(min=0).sqrt() @ vectors_DD.T
    felt_D, felt_DD = torch.linalg.eigh(root_DD @ gradients_DD @ root_DD)
    orthonormal_DD = torch.linalg.qr(root_DD @ felt_DD.flip(1)).Q
    return Basis(signed(orthonormal_DD), felt_D.flip(0).clamp(min=0))


def moments(model: PreTrainedModel, batches: Iterable[dict[str, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return C = Σ x̂·x̂ᵀ and G = Σ ĝ·ĝᵀ over every place where the stream is read and every token, both (D, D) in fp64.

    x̂ is the stream there over its RMS. ĝ is the gradient of the summed next-token loss by that input, times the RMS: the gradient by
    x̂. Only the stream's gradients are held, never a weight's.
    """
    model.requires_grad_(False)
    size, eps = model.config.hidden_size, norm_eps(model.config)
    activations_DD, gradients_DD = (torch.zeros(size, size, dtype=torch.float64, device=model.device) for _ in range(2))

    def add(x_ND: Tensor, gradient_ND: Tensor) -> None:
        rms_N1 = root_mean_square(x_ND, eps)
        for moment_DD, row_ND in ((activations_DD, x_ND / rms_N1), (gradients_DD, gradient_ND * rms_N1)):
            moment_DD.addmm_(row_ND.T, row_ND)

    for batch in batches:
        with _norm_inputs_and_gradients(model, batch["attention_mask"].bool().to(model.device), add) as embedded:
            torch.autograd.grad(text_loss(model, batch), embedded)
    return activations_DD, gradients_DD


@contextmanager
def _norm_inputs_and_gradients(model: PreTrainedModel, mask_BT: Tensor, visit: Callable[[Tensor, Tensor], None]) -> Iterator[list[Tensor]]:
    """While open, hand `visit` the stream at each site and its gradient, both (N, D) in fp64, when the backward pass reaches it.

    Yields a list that holds the embedding's output after a forward pass: what to differentiate by, so that no weight needs a gradient.
    """
    embedded: list[Tensor] = []

    def on_embedding(_module: nn.Module, _inputs: Any, output_BTD: Tensor) -> Tensor:
        embedded.append(output_BTD.requires_grad_())
        return embedded[-1]

    def on_input(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        input_ND = inputs[0].detach()[mask_BT].double()
        inputs[0].register_hook(lambda gradient_BTD: visit(input_ND, gradient_BTD[mask_BT].double()))

    family = family_of(model.config)
    sites = [model.get_submodule(site.name) for site in family.sites(model.config.num_hidden_layers)]
    hooks = [site.register_forward_pre_hook(on_input) for site in sites]
    hooks.append(model.get_input_embeddings().register_forward_hook(on_embedding))
    with removed_behind(hooks):
        yield embedded
