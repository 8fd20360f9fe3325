"""The second moment of the residual stream on some text: what every norm is given, seen by hooks and summed up.

Axes: B batch, T tokens, D channels, N tokens that count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pat.families import family_of

Visit = Callable[[str, Tensor], None]
"""What is done with a norm's name and its input, (N, D)."""


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
