"""Taylor importance: signed sums are derivatives and obey the identities of coupled weights; scores equal a plain computation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pat.data.calibration import Blocks
from pat.families.known import Kind, family_of, head_size
from pat.models.sizes import Units
from pat.pruners.taylor import streamed_products, unit_scores
from tests.kit.tiny_models import CONFIGS, random_tokens, tiny_model

LAYERS = 3
BIAS_FREE = ["llama", "llama-grouped", "llama-grouped-tied", "gemma", "mistral", "yi"]


class FineNorm(nn.Module):
    """The stock norm without its detour through fp32, in which small differences of a float64 model would drown."""

    def __init__(self, norm: Any, offset: float, eps: float) -> None:
        super().__init__()
        self.gain_D = (norm.weight.detach() + offset).double()
        self.eps = eps

    def forward(self, x_BTD: Tensor) -> Tensor:
        normed_BTD: Tensor = self.gain_D * x_BTD * (x_BTD.square().mean(-1, keepdim=True) + self.eps).rsqrt()
        return normed_BTD


def fine_model(name: str) -> Any:
    """A tiny model that computes in float64 throughout."""
    model: Any = tiny_model(name).double()
    family = family_of(model.config)
    for norm in family.stream_norms(LAYERS):
        model.set_submodule(norm, FineNorm(model.get_submodule(norm), family.gain_offset, model.config.rms_norm_eps))
    return model


def fine_loss(model: Any, tokens: Tensor) -> Tensor:
    logits = model(input_ids=tokens, use_cache=False).logits
    return cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def products_of(model: Any, tokens: Tensor) -> dict[str, Tensor]:
    """Return w · dL/dw by linear layer, from streaming."""
    found: dict[str, Tensor] = {}
    names = [f"model.layers.{layer}.{linear}.weight" for layer in range(LAYERS) for linear in family_of(model.config).linears]
    with streamed_products(model, names, found.__setitem__):
        fine_loss(model, tokens).backward()
    assert set(found) == set(names)
    assert all(parameter.grad is None for parameter in model.parameters())
    return {name.removesuffix(".weight"): product for name, product in found.items()}


def rows(start: int, stop: int) -> Callable[[Tensor], Tensor]:
    return lambda weight: weight[start:stop]


@pytest.mark.parametrize(
    ("linear", "part"),
    [("self_attn.q_proj", rows(12, 24)), ("self_attn.v_proj", rows(0, 12)), ("mlp.gate_proj", rows(7, 8)), ("mlp.down_proj", rows(3, 9))],
)
def test_a_signed_sum_is_the_derivative_of_scaling_those_weights(linear: str, part: Callable[[Tensor], Tensor]) -> None:
    model, tokens = fine_model("llama-grouped"), random_tokens(3, 12)
    found = float(part(products_of(model, tokens)[f"model.layers.1.{linear}"]).sum())
    weight, losses, step = model.get_parameter(f"model.layers.1.{linear}.weight"), [], 1e-5
    for sign in (1, -1):
        kept = weight.detach().clone()
        with torch.no_grad():
            part(weight).mul_(1 + sign * step)
            losses.append(float(fine_loss(model, tokens)))
            weight.copy_(kept)
    assert found == pytest.approx((losses[0] - losses[1]) / (2 * step), rel=1e-6, abs=1e-9)


def by_block(product: Tensor, count: int) -> Tensor:
    """Return the sums over `count` equal blocks of rows."""
    return product.reshape(count, -1).sum(1)


@pytest.mark.parametrize("name", BIAS_FREE)
def test_coupled_weights_have_equal_signed_sums(name: str) -> None:
    """A factor moves freely from up's row to down's column, from v's head to o's columns, and from k's head to its queries' rows."""
    model = fine_model(name)
    products, groups = products_of(model, random_tokens(3, 12)), model.config.num_key_value_heads
    for layer in range(LAYERS):
        q, k, v, o, up, down = (
            products[f"model.layers.{layer}.{linear}"]
            for linear in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj")
        )
        for one, other in (
            (up.sum(1), down.sum(0)),
            (by_block(v, groups), by_block(o.T, groups)),
            (by_block(k, groups), by_block(q, groups)),
        ):
            assert one.abs().max() > 1e-5, "the sums must say something"
            assert torch.allclose(one, other, rtol=1e-7, atol=1e-12)


def test_scores_over_weights_are_at_least_those_over_vectors() -> None:
    for product in products_of(fine_model("llama-grouped"), random_tokens(3, 12)).values():
        assert torch.all(product.abs().sum(1) >= product.sum(1).abs())


@pytest.mark.parametrize(("name", "at_once"), [*((name, 3) for name in CONFIGS), ("llama-grouped-tied", 1), ("mistral", 2)])
def test_scores_equal_those_of_a_plain_backward_pass(name: str, at_once: int) -> None:
    """Unit by unit from whole gradients: key-value head t goes with query heads t·g … t·g + g − 1. Padding is not learned.

    Where the rows are not all in one batch, the gradients are summed up before anything is made of them.
    """
    model: Any = tiny_model(name)
    config, tokens = model.config, random_tokens(3, 12)
    mask = torch.ones_like(tokens)
    mask[2, 9:] = 0
    labels = tokens.masked_fill(mask == 0, -100)
    model(input_ids=tokens, attention_mask=mask, labels=labels).loss.backward()
    groups, head = config.num_key_value_heads, head_size(config)
    shared = config.num_attention_heads // groups
    expected: dict[Kind, list[Tensor]] = {"groups": [], "neurons": []}
    for layer in model.model.layers:
        cost = {
            linear: (part.weight * part.weight.grad).abs()
            for linear, part in [*layer.self_attn.named_children(), *layer.mlp.named_children()]
            if "proj" in linear
        }
        heads = [
            sum(cost[part][t * head : (t + 1) * head].sum() for part in ("k_proj", "v_proj"))
            + sum(
                cost["q_proj"][number * head : (number + 1) * head].sum() + cost["o_proj"][:, number * head : (number + 1) * head].sum()
                for number in range(t * shared, (t + 1) * shared)
            )
            for t in range(groups)
        ]
        expected["groups"].append(torch.stack(heads))
        expected["neurons"].append(cost["gate_proj"].sum(1) + cost["up_proj"].sum(1) + cost["down_proj"].sum(0))
    model.zero_grad()
    units: dict[Kind, Units] = {"groups": Units(groups, 0), "neurons": Units(config.intermediate_size, 0)}
    batches = list(Blocks(tokens, mask).batches(at_once))
    found = unit_scores(model, batches, units, range(model.config.num_hidden_layers))
    for kind, scores in expected.items():
        for one, other in zip(scores, found[kind], strict=True):
            assert torch.allclose(one, other, rtol=1e-3)
    assert all(parameter.grad is None for parameter in model.parameters()), "no gradient may stay"
