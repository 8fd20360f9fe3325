"""The second moment of the residual stream on some text: what is read of it, seen by hooks and summed up.

Axes: B batch, T tokens, D channels, N tokens that count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pat.families.known import family_of, norm_eps
from pat.models.hooks import removed_behind

Visit = Callable[[str, Tensor], None]
"""What is done with a site's name, which is its norm's where it has one, and the stream there, (N, D)."""


def root_mean_square(x_ND: Tensor, eps: float) -> Tensor:
    """Return what an RMS norm divides by, √(mean of x² + eps), (N, 1) (docs/method.md, equation 2)."""
    return (x_ND.square().mean(1, keepdim=True) + eps).sqrt()


@torch.no_grad()
def second_moment(model: PreTrainedModel, batches: Iterable[dict[str, Tensor]]) -> Tensor:
    """Return Σ x·xᵀ, (D, D) in fp64, where x is the stream at every place where it is read, divided by its RMS.

    So every token and every place has the same weight, and a few tokens of huge norm do not decide alone. Not centred: an RMS norm
    does not centre either. The sum is taken in fp64.
    """
    moment_DD = torch.zeros(model.config.hidden_size, model.config.hidden_size, dtype=torch.float64, device=model.device)
    eps = norm_eps(model.config)

    def add(_norm: str, x_ND: Tensor) -> None:
        wide_ND = x_ND.double()
        normed_ND = wide_ND * (wide_ND.square().mean(1, keepdim=True) + eps).rsqrt()
        moment_DD.addmm_(normed_ND.T, normed_ND)

    visit_norm_inputs(model, batches, add)
    return moment_DD


@torch.no_grad()
def visit_norm_inputs(model: PreTrainedModel, batches: Iterable[dict[str, Tensor]], visit: Visit) -> None:
    """Run the model on the text and hand `visit` each site where the stream is read by its name, with the tokens (N, D) that reach it."""
    body: Any = model.base_model
    for batch in batches:
        with _norm_inputs(model, batch["attention_mask"].bool().to(model.device), visit):
            body(**{name: tensor.to(model.device) for name, tensor in batch.items()}, use_cache=False)


@contextmanager
def _norm_inputs(model: PreTrainedModel, mask_BT: Tensor, visit: Visit) -> Iterator[None]:
    """While open, hand `visit` the tokens (N, D) that reach each site where the stream is read, without padding."""

    def on_input(site: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _module, inputs: visit(site, inputs[0][mask_BT])

    sites = family_of(model.config).sites(model.config.num_hidden_layers)
    hooks = [model.get_submodule(site.name).register_forward_pre_hook(on_input(site.name)) for site in sites]
    with removed_behind(hooks):
        yield
