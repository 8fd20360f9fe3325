"""A LayerNorm that follows a gate: the stock norm of the living channels where the others are closed, itself where all are open."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from pat.models.living_norms import centred, follow_the_gate
from tests.kit.tiny_models import logits, random_tokens, tiny_model

CHANNELS = 9


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(st.lists(st.booleans(), min_size=CHANNELS, max_size=CHANNELS).filter(any), st.integers(0, 1000))
def test_with_closed_channels_it_is_the_norm_of_the_others(kept: list[bool], seed: int) -> None:
    kept_D, gain_D, bias_D = torch.tensor(kept), drawn(seed, CHANNELS), drawn(seed + 1, CHANNELS)
    stream = drawn(seed + 2, 4, CHANNELS) * kept_D
    gate_D = kept_D.double()
    found = layer_norm(centred(stream, gate_D), (CHANNELS,), gain_D, bias_D, eps=0.1) - (1 - gate_D) * bias_D
    living, ratio = stream[:, kept_D], int(kept_D.sum()) / CHANNELS
    wanted = layer_norm(living, living.shape[-1:], gain_D[kept_D] * ratio**-0.5, bias_D[kept_D], eps=0.1 / ratio)
    assert torch.allclose(found[:, kept_D], wanted, atol=1e-9) and found[:, ~kept_D].abs().sum() <= 1e-9


def test_with_all_channels_closed_a_silent_stream_stays_silent() -> None:
    silent = torch.zeros(2, CHANNELS)
    assert torch.equal(centred(silent, silent[0]), silent)


def test_its_gradients_are_those_of_finite_differences() -> None:
    gate_D = torch.rand(CHANNELS, generator=torch.Generator().manual_seed(3), dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(centred, (drawn(4, 2, CHANNELS).requires_grad_(), gate_D))


def test_a_model_with_all_gates_open_or_none_is_the_model() -> None:
    model, tokens = tiny_model("phi").double(), random_tokens()
    expected = logits(model, tokens)
    gates: list[Tensor | None] = [None, torch.ones(48, dtype=torch.float64), torch.arange(48) % 4 > 0]
    for gate, same in zip(gates, (True, True, False), strict=True):
        handles = follow_the_gate(model, lambda gate=gate: None if gate is None else gate.double())  # type: ignore[misc]
        assert len(handles) == 2 * (3 + 1)
        assert torch.allclose(logits(model, tokens), expected, atol=1e-12) == same
        for handle in handles:
            handle.remove()
    assert torch.equal(logits(model, tokens), expected)


def test_other_families_have_nothing_to_follow() -> None:
    assert follow_the_gate(tiny_model("llama"), lambda: torch.zeros(48)) == []
    assert not any(isinstance(module, nn.LayerNorm) for module in tiny_model("llama").modules())
