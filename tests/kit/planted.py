"""A task that only the operators can do: each write of a model's stream is turned, and D alone can turn it back."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pat import PatConfig, PatModel, attach
from pat.families.known import family_of
from pat.training.trainer import parameter_groups
from tests.kit.tiny_models import random_tokens, tiny_model

RANK = 4
"""Of the plane in which a write is turned."""
SHARPER = 4.0
"""What the head is multiplied by, so that its text has something to learn."""


@dataclass(frozen=True)
class Planted:
    """A model, the same with turned writes, and texts by the first."""

    straight: PreTrainedModel
    turned: PreTrainedModel
    tokens_NT: Tensor


def planted() -> Planted:
    """Return the task; the same each time."""
    straight, turned = _sharp_model(), _sharp_model()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for write in family_of(turned.config).writes(turned.config.num_hidden_layers):
            weight = turned.get_submodule(write).get_parameter("weight")
            rotation_DD = _rotation(turned.config.hidden_size, generator)
            weight.copy_(weight @ rotation_DD.T if weight.shape[0] == turned.config.vocab_size else rotation_DD @ weight)
    torch.manual_seed(6)
    model: Any = straight
    tokens_NT = model.generate(random_tokens(256, 1, seed=7), do_sample=True, min_new_tokens=15, max_new_tokens=15, top_k=0)
    return Planted(straight, turned, tokens_NT)


def _sharp_model() -> PreTrainedModel:
    model: Any = tiny_model("llama")
    with torch.no_grad():
        model.lm_head.weight.mul_(SHARPER)
    model.generation_config.eos_token_id = None
    sharp: PreTrainedModel = model
    return sharp


def _rotation(size: int, generator: torch.Generator) -> Tensor:
    """Return a rotation of `size` channels within a plane of RANK dimensions."""
    plane_DR = torch.linalg.qr(torch.randn(size, RANK, generator=generator)).Q
    turn_RR = torch.linalg.qr(torch.randn(RANK, RANK, generator=generator)).Q
    rotation_DD: Tensor = torch.eye(size) + plane_DR @ (turn_RR - torch.eye(RANK)) @ plane_DR.T
    return rotation_DD


@torch.no_grad()
def loss_of(model: Any, tokens_NT: Tensor) -> float:
    """Return the cross-entropy of texts."""
    return float(model.eval()(input_ids=tokens_NT, labels=tokens_NT).loss)


def learned(task: Planted, learning_rate: float, steps: int, **choices: Any) -> PatModel:
    """Return the turned model after tuning its operators, and nothing else, by the shipped defaults but for `choices`."""
    model = attach(
        copy.deepcopy(task.turned), PatConfig(**{"pruning_ratio": 0.0, "hio_rank": RANK, "lora_rank": 1, "total_steps": steps} | choices)
    )
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            parameter.requires_grad_(False)
    optimizer = torch.optim.AdamW(parameter_groups(model, learning_rate))
    model.train()
    for step in range(steps):
        rows = task.tokens_NT[torch.randperm(len(task.tokens_NT), generator=torch.Generator().manual_seed(step))[:32]]
        loss = model(input_ids=rows, labels=rows).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model
