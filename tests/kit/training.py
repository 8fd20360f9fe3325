"""A few honest training steps on a tiny masked model, for tests that need trained, non-trivial tensors."""

from __future__ import annotations

import copy

import torch
from transformers import PreTrainedModel

from pat import PatConfig, PatModel, attach
from pat.data.calibration import Blocks
from tests.kit.tiny_models import random_tokens, tiny_model


def random_text() -> Blocks:
    """Return blocks of random tokens, the last one padded, for options that measure on text."""
    tokens_NT = random_tokens(12, 20, seed=42)
    mask_NT = torch.ones_like(tokens_NT)
    mask_NT[-1, 15:] = 0
    return Blocks(tokens_NT, mask_NT)


_trained: dict[tuple[str, int, str], PatModel] = {}
"""Models that are trained already, by config, steps and choices; many tests ask for the same."""


def trained(name: str, steps: int = 12, **choices: object) -> PatModel:
    """Return a tiny model of a family after a whole short schedule; every trained tensor is far from its start.

    It is a copy of its own, the same each time: what is drawn in training, as LoRA's dropout, is seeded here.
    """
    base = tiny_model(name)
    key = base.config.to_json_string(), steps, repr(sorted(choices.items()))
    if key not in _trained:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            _trained[key] = train(base, steps, **choices)
    return copy.deepcopy(_trained[key])


def train(base: PreTrainedModel, steps: int = 12, **choices: object) -> PatModel:
    """As trained, for a model of any tokens beyond those of the tiny ones."""
    settings: dict[str, object] = {"pruning_ratio": 0.25, "hio_rank": 5, "lora_rank": 3, "total_steps": 12, "lora_alpha": 6.0} | choices
    model = attach(base, PatConfig(**settings), random_text())  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(1)
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for parameter_name, parameter in parameters.items():
            if not parameter_name.endswith("mask.proxy"):
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    optimizer = torch.optim.AdamW(parameters.values(), lr=5e-3, fused=True)  # in one call, not one a tensor
    model.train()
    for step in range(steps):
        tokens = random_tokens(seed=step)
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        model.advance()
    return model.eval()
