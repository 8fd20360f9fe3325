"""A random adapter on disk as a finished PAT run leaves it: LoRA, operators and a closed mask, without the model that it belongs to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pat.benchmark.random_checkpoint import SPREAD
from pat.families.known import Family, family_of
from pat.io import artefacts
from pat.method.adapter_folder import write_lora
from pat.method.lora import PEFT_PREFIX
from pat.method.model import lora_config
from pat.method.sparsifier import Sparsifier
from pat.models.width import planned_width
from pat.settings.config import PatConfig


def write_random_adapter(model_config: Any, shapes: Mapping[str, tuple[int, ...]], config: PatConfig, out: Path) -> None:
    """Write an adapter for a model of this config and these parameters' shapes. `config` needs `total_steps`; its seed is used.

    Raises ValueError on a width or rank that cannot be.
    """
    family = family_of(model_config)
    torch.manual_seed(config.seed)
    with artefacts.new_folder(out) as folder:
        lora = lora_config(family, config.lora_rank, config.lora_alpha, config.lora_dropout, use_dora=config.use_dora)
        write_lora(folder, lora, dict(random_updates(shapes, family, config.lora_rank)))
        closed_sparsifier(model_config, family, config).save(folder)


def random_updates(shapes: Mapping[str, tuple[int, ...]], family: Family, rank: int) -> Iterator[tuple[str, Tensor]]:
    """Yield LoRA's two factors of every linear layer inside the decoder layers, in fp32 under PEFT's names."""
    for name, shape in shapes.items():
        module = name.removesuffix(".weight")
        if len(shape) == 2 and family.place(module) is not None:
            yield f"{PEFT_PREFIX}{module}.lora_A.weight", SPREAD * torch.randn(rank, shape[1])
            yield f"{PEFT_PREFIX}{module}.lora_B.weight", SPREAD * torch.randn(shape[0], rank)


def closed_sparsifier(model_config: Any, family: Family, config: PatConfig) -> Sparsifier:
    """Return operators away from the identity, behind a mask that has run through its schedule."""
    tied = bool(model_config.tie_word_embeddings)
    writes = family.writes(model_config.num_hidden_layers)
    sparsifier = Sparsifier(model_config.hidden_size, planned_width(model_config, config), writes, tied=tied, config=config)
    with torch.no_grad():
        for name, parameter in sparsifier.named_parameters():
            if name.endswith(("operator.scale", "operator.up")):
                parameter.normal_(std=SPREAD)
    while not sparsifier.mask.finished:
        sparsifier.mask.advance()
    return sparsifier
