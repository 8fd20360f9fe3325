"""The released variant written down from its formulas (method, sections 10 and 13) in float64: no module of the package is used.

A Llama of its own, LoRA, HSMs, mask and losses over a dictionary of plain tensors. Axes: B batch, T tokens, D channels, H head size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

THETA = 10_000.0


@dataclass(frozen=True)
class Shape:
    """What the tensors' sizes do not say; `lora_scale` is alpha over rank."""

    layers: int
    heads: int
    eps: float
    lora_scale: float
    wanted: int
    milestone: int


def temperature(step: int, milestone: int) -> float:
    """τ = 1 / (1 − ln max(1, s) / ln s0), that of 0.8·s0 from there on."""
    heated = min(max(1, step), round(0.8 * milestone))
    return 1.0 / (1.0 - math.log(heated) / math.log(milestone))


def soft_mask(proxy_D: Tensor, step: int, milestone: int) -> Tensor:
    """σ(τ·w) + β with β = 1/2 − s/s0 up to s0/2."""
    return torch.sigmoid(temperature(step, milestone) * proxy_D) + max(0.5 - step / milestone, 0.0)


def active_loss(proxy_D: Tensor, wanted: int) -> Tensor:
    """10·|count − N|/N, the count's gradient that of Σ w, and a pull to ±1/2 that is a mean over each side."""
    is_open = proxy_D >= 0
    count = is_open.double().sum().detach() + (proxy_D - proxy_D.detach()).sum()
    loss = 10.0 * (count - wanted).abs() / wanted
    if is_open.any():
        loss = loss + ((proxy_D[is_open] - 0.5) ** 2).mean()
    if not is_open.all():
        loss = loss + ((proxy_D[~is_open] + 0.5) ** 2).mean()
    return loss


def identity_loss(tensors: Mapping[str, Tensor], layers: int) -> Tensor:
    """The mean square of L0·L0ᵀ − I over the embedding's HSM and the last layer's two."""
    last = f"model.layers.{layers - 1}"
    total = torch.zeros((), dtype=torch.float64)
    for write in ("model.embed_tokens", f"{last}.self_attn.o_proj", f"{last}.mlp.down_proj"):
        down = tensors[f"{write}.operator.down"]
        total = total + ((down @ down.T - torch.eye(len(down), dtype=torch.float64)) ** 2).mean()
    return total


def logits(tensors: Mapping[str, Tensor], tokens_BT: Tensor, mask_D: Tensor, shape: Shape) -> Tensor:
    """The masked model's logits; every write passes its HSM, scale ⊙ M ⊙ (I + L1·L0)·y."""

    def linear(x: Tensor, name: str) -> Tensor:
        low = x @ tensors[f"{name}.lora_A"].T
        return x @ tensors[f"{name}.weight"].T + shape.lora_scale * low @ tensors[f"{name}.lora_B"].T

    def sparsified(y: Tensor, write: str) -> Tensor:
        turned = y + y @ tensors[f"{write}.operator.down"].T @ tensors[f"{write}.operator.up"].T
        return turned * mask_D * tensors[f"{write}.output_scale"]

    def normed(x: Tensor, name: str) -> Tensor:
        return tensors[f"{name}.weight"] * x / torch.sqrt((x**2).mean(-1, keepdim=True) + shape.eps)

    stream = sparsified(tensors["model.embed_tokens.weight"][tokens_BT], "model.embed_tokens")
    for layer in range(shape.layers):
        name = f"model.layers.{layer}"
        x = normed(stream, f"{name}.input_layernorm")
        query, key, value = (linear(x, f"{name}.self_attn.{which}_proj") for which in "qkv")
        stream = stream + sparsified(
            linear(attention(query, key, value, shape.heads), f"{name}.self_attn.o_proj"), f"{name}.self_attn.o_proj"
        )
        x = normed(stream, f"{name}.post_attention_layernorm")
        inner = functional.silu(linear(x, f"{name}.mlp.gate_proj")) * linear(x, f"{name}.mlp.up_proj")
        stream = stream + sparsified(linear(inner, f"{name}.mlp.down_proj"), f"{name}.mlp.down_proj")
    return normed(stream, "model.norm") @ tensors["lm_head.weight"].T


def attention(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Causal attention with rotary positions, heads side by side in the last axis."""
    batch, length, width = query.shape
    query, key, value = (it.reshape(batch, length, heads, -1).transpose(1, 2) for it in (query, key, value))
    query, key = rotated(query), rotated(key)
    scores = query @ key.transpose(-1, -2) / math.sqrt(width // heads)
    later = torch.ones(length, length, dtype=torch.bool).triu(1)
    mixed = scores.masked_fill(later, -math.inf).softmax(-1) @ value
    return mixed.transpose(1, 2).reshape(batch, length, width)


def rotated(x_BHTH: Tensor) -> Tensor:
    """Rotary position embedding, the two halves of a head as pairs."""
    length, size = x_BHTH.shape[-2:]
    frequency = THETA ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
    angle = torch.arange(length, dtype=torch.float64)[:, None] * frequency
    first, second = x_BHTH.chunk(2, dim=-1)
    return torch.cat([first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()], dim=-1)


def losses(tensors: Mapping[str, Tensor], tokens_BT: Tensor, step: int, shape: Shape) -> dict[str, Tensor]:
    """The terms of the objective at a step: cross-entropy of the next token, L_active and L_identity."""
    predicted = logits(tensors, tokens_BT, soft_mask(tensors["proxy"], step, shape.milestone), shape)
    return {
        "instruct": functional.cross_entropy(predicted[:, :-1].flatten(0, 1), tokens_BT[:, 1:].flatten()),
        "active": active_loss(tensors["proxy"], shape.wanted),
        "identity": identity_loss(tensors, shape.layers),
    }


class Adam:
    """Adam with bias correction, without decay, over named tensors; each has a rate."""

    def __init__(self, tensors: Mapping[str, Tensor], rates: Mapping[str, float]) -> None:
        self.tensors, self.rates, self.step_count = tensors, rates, 0
        self.first = {name: torch.zeros_like(tensors[name]) for name in rates}
        self.second = {name: torch.zeros_like(tensors[name]) for name in rates}

    @torch.no_grad()
    def step(self) -> None:
        """Take one step by the gradients there are, and clear them."""
        self.step_count += 1
        for name, rate in self.rates.items():
            tensor = self.tensors[name]
            if tensor.grad is None:
                continue
            self.first[name].mul_(0.9).add_(0.1 * tensor.grad)
            self.second[name].mul_(0.999).add_(0.001 * tensor.grad**2)
            first = self.first[name] / (1 - 0.9**self.step_count)
            second = self.second[name] / (1 - 0.999**self.step_count)
            tensor.sub_(rate * first / (second.sqrt() + 1e-8))
            tensor.grad = None
