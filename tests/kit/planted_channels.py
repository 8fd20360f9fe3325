"""Tiny models of which it is known what matters: half of the channels planted as noise, and one pretrained for a moment."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from pat.bases.rotation import Rotation
from pat.families.known import Role, family_of
from pat.method.importance import gains_of
from tests.kit.tiny_models import VOCABULARY, tiny_model

HIDDEN, HALF = 48, 24


def planted() -> tuple[PreTrainedModel, Tensor]:
    """Return a model whose readers are deaf to half of the channels, which are as loud as the others, and the other half, (D,)."""
    model = tiny_model("llama")
    family = family_of(model.config)
    noise = torch.randperm(HIDDEN, generator=torch.Generator().manual_seed(100))[:HALF]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if family.role(name) in (Role.READ, Role.HEAD) and parameter.dim() == 2:
                parameter[:, noise] = 0.0
    read_D = torch.ones(HIDDEN, dtype=torch.bool)
    read_D[noise] = False
    return model, read_D


@torch.no_grad()
def own_text(model: Any, rows: int = 256, length: int = 20) -> Tensor:
    """Return tokens that a model says itself, (N, T): on them it is as stationary as a pretrained model is on its corpus."""
    random = torch.Generator().manual_seed(1)
    ids_NT = torch.randint(3, model.config.vocab_size, (rows, 1), generator=random)
    cache, last_N1 = None, ids_NT
    for _ in range(length - 1):
        said = model(input_ids=last_N1, past_key_values=cache, use_cache=True)
        cache, last_N1 = said.past_key_values, torch.multinomial(said.logits[:, -1].float().softmax(-1), 1, generator=random)
        ids_NT = torch.cat([ids_NT, last_N1], 1)
    return ids_NT


def rotated(model: PreTrainedModel, directions_DD: Tensor) -> PreTrainedModel:
    """Return the model in another basis, its directions in the columns."""
    rotation = Rotation(family_of(model.config), directions_DD.double(), gains_of(model), tied=False)
    turned = copy.deepcopy(model)
    turned.load_state_dict(dict(pair for name, tensor in model.state_dict().items() for pair in rotation(name, tensor)))
    return turned


def turned_within(read_D: Tensor) -> Tensor:
    """Return a random rotation that mixes the channels of `read_D` among each other and the rest among themselves."""
    random = torch.Generator().manual_seed(5)
    rotation_DD = torch.zeros(HIDDEN, HIDDEN, dtype=torch.float64)
    for part_D in (read_D, ~read_D):
        index = part_D.nonzero().flatten()
        mixed = torch.linalg.qr(torch.randn(len(index), len(index), dtype=torch.float64, generator=random)).Q
        rotation_DD[index[:, None], index] = mixed
    return rotation_DD


def chains(rows: int, length: int, seed: int) -> Tensor:
    """Return rows of a language in which each word has four likely successors that depend on the last two words' classes."""
    laws = torch.Generator().manual_seed(0)
    successors = torch.randint(3, VOCABULARY, (8, VOCABULARY, 4), generator=laws)
    random = torch.Generator().manual_seed(seed)
    ids_NT = torch.randint(3, VOCABULARY, (rows, 2), generator=random)
    for _ in range(length - 2):
        choice_N = torch.multinomial(torch.tensor([8.0, 4.0, 2.0, 1.0]), rows, replacement=True, generator=random)
        ids_NT = torch.cat([ids_NT, successors[ids_NT[:, -2] % 8, ids_NT[:, -1], choice_N][:, None]], 1)
    return ids_NT


def pretrained(steps: int = 160) -> PreTrainedModel:
    """Return a tiny Llama that has learned most of what can be known of the language of `chains`."""
    torch.manual_seed(0)
    model: Any = LlamaForCausalLM(LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=HIDDEN, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64, initializer_range=0.08,
    ))  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-3, weight_decay=0.1)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 6e-3 * (1 - step / steps)
        ids = chains(16, 24, seed=100 + step)
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    done: PreTrainedModel = model.eval()
    return done
