"""The gradient basis: its moments against gradients taken another way, its directions against matrices whose answer is known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pat.bases.gradient_basis import gradient_basis, joined, moments
from pat.families.known import family_of
from pat.method.importance import gradient_batches, text_loss
from pat.models.second_moment import second_moment
from tests.kit.pruning_inputs import random_basis
from tests.kit.tiny_models import tiny_model
from tests.kit.training import random_text


def gradients_by_added_zeros(model: Any, batch: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Return the stream and the loss's gradient after every write, (N, D) each: zeros are added to the writes and differentiated by."""
    family, zeros, stream = family_of(model.config), [], []
    mask_BT = batch["attention_mask"].bool()

    def add(_module: Any, _inputs: Any, output: Tensor) -> Tensor:
        zeros.append(torch.zeros_like(output, requires_grad=True))
        return output + zeros[-1]

    hooks = [model.get_submodule(write).register_forward_hook(add) for write in family.writes(3)]
    norms = [model.get_submodule(norm) for norm in family.stream_norms(3)]
    hooks += [norm.register_forward_pre_hook(lambda _norm, inputs: stream.append(inputs[0].detach())) for norm in norms]
    gradients = torch.autograd.grad(text_loss(model, batch), zeros)
    for hook in hooks:
        hook.remove()
    return [(x[mask_BT].double(), gradient[mask_BT].double()) for x, gradient in zip(stream, gradients, strict=True)]


@pytest.mark.parametrize("name", ["llama-grouped-tied", "qwen3"])
def test_the_moments_are_those_of_the_stream_after_every_write(name: str) -> None:
    model: Any = tiny_model(name)
    expected_DD = torch.zeros(48, 48, dtype=torch.float64)
    for batch in gradient_batches(random_text()):
        for x_ND, gradient_ND in gradients_by_added_zeros(model, batch):
            scaled_ND = gradient_ND * (x_ND.square().mean(1, keepdim=True) + model.config.rms_norm_eps).sqrt()
            expected_DD += scaled_ND.T @ scaled_ND
    activations_DD, gradients_DD = moments(tiny_model(name), gradient_batches(random_text()))
    assert torch.allclose(gradients_DD, expected_DD, rtol=1e-3, atol=1e-5 * expected_DD.abs().max().item())
    assert torch.allclose(activations_DD, second_moment(tiny_model(name), random_text().batches()), rtol=1e-4, atol=1e-3)


def test_no_weight_is_given_a_gradient() -> None:
    model = tiny_model("llama")
    gradient_basis(model, gradient_batches(random_text()))
    assert all(parameter.grad is None for parameter in model.parameters())


@given(
    st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)), min_size=2, max_size=8, unique_by=lambda pair: round(pair[0] * pair[1], 1))
)
def test_uncorrelated_channels_are_ordered_by_variance_times_gradient(pairs: list[tuple[float, float]]) -> None:
    variance_D, gradient_D = torch.tensor(pairs, dtype=torch.float64).T
    found = joined(torch.diag(variance_D), torch.diag(gradient_D))
    order_D = (variance_D * gradient_D).argsort(descending=True)
    assert torch.allclose(found.importance_D, (variance_D * gradient_D)[order_D])
    assert torch.allclose(found.directions_DD, torch.eye(len(pairs), dtype=torch.float64)[:, order_D], atol=1e-6)


def test_turning_the_stream_turns_the_basis() -> None:
    rows = torch.randn(2, 200, 48, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    one_DD, other_DD = (part.T @ (part * torch.arange(1, 49)) for part in rows)
    one_DD, other_DD = one_DD + one_DD.T, other_DD + other_DD.T
    one_DD, other_DD = one_DD @ one_DD.T, other_DD @ other_DD.T
    turn_DD = random_basis()
    plain = joined(one_DD, other_DD)
    turned = joined(turn_DD.T @ one_DD @ turn_DD, turn_DD.T @ other_DD @ turn_DD)
    alike_DD = (turn_DD @ turned.directions_DD).T @ plain.directions_DD
    assert torch.allclose(turned.importance_D, plain.importance_D, rtol=1e-6)
    assert torch.allclose(alike_DD.abs(), torch.eye(48, dtype=torch.float64), atol=1e-5)


def test_a_direction_that_nothing_feels_comes_last() -> None:
    """A channel of huge variance without gradient: a principal basis would keep it first."""
    variance_D, gradient_D = torch.ones(6, dtype=torch.float64), torch.ones(6, dtype=torch.float64)
    variance_D[2], gradient_D[2] = 1e6, 0.0
    assert joined(torch.diag(variance_D), torch.diag(gradient_D)).directions_DD[2, -1].abs() == pytest.approx(1.0)
