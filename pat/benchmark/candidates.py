"""The models that a benchmark compares: random weights of a shape and its narrower widths, or checkpoint folders."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from pat.benchmark.settings import InferenceBenchmark, ModelShape
from pat.benchmark.widths import widths_of
from pat.checkpoints import checkpoint
from pat.errors import UserError
from pat.models.width import merged_config

MARKS = ("pad_token_id", "bos_token_id", "eos_token_id")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Candidate:
    """A model to be measured: its name, its config, and what puts it on a device."""

    name: str
    config: Any
    load: Callable[[str], PreTrainedModel]

    def record(self, unpruned: Candidate) -> dict[str, object]:
        """Return the candidate's sizes, counted from its config without making it, and the shares removed from `unpruned`."""
        parameters, before = parameter_count(self.config), parameter_count(unpruned.config)
        return {
            "name": self.name,
            "hidden_size": self.config.hidden_size,
            "parameters": parameters,
            "ratio_effective": 1.0 - self.config.hidden_size / unpruned.config.hidden_size,
            "share_removed": 1.0 - parameters / before,
        }


def parameter_shapes(config: Any) -> dict[str, tuple[int, ...]]:
    """Return every parameter's shape by its stock name, tied ones once, without making the model."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    model.tie_weights()
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def parameter_count(config: Any) -> int:
    """Return how many parameters a model has, tied ones once."""
    return sum(map(math.prod, parameter_shapes(config).values()))


def stock_config(shape: ModelShape) -> Any:
    """Return the Hugging Face config of a shape."""
    sizes = {
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads or shape.heads,
        "head_dim": shape.head_size or shape.hidden_size // shape.heads,
    }
    usual = AutoConfig.for_model(shape.family)
    # Marks that the family has beyond a small vocabulary would have no row in its embedding.
    marks = {name: place for place, name in enumerate(MARKS) if _highest(getattr(usual, name, None)) >= shape.vocab_size}
    return AutoConfig.for_model(shape.family, **sizes, **marks, tie_word_embeddings=shape.tie_embeddings)


def _highest(ids: int | list[int] | None) -> int:
    return max(ids, default=-1) if isinstance(ids, list) else -1 if ids is None else ids


def random_model(config: Any, device: str, dtype: torch.dtype, seed: int, attention: str = "sdpa") -> PreTrainedModel:
    """Return a model with random weights, made on the device itself."""
    torch.manual_seed(seed)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
    made: PreTrainedModel = model.eval()
    return made


def of_shape(shape: ModelShape, settings: InferenceBenchmark, seed: int) -> list[Candidate]:
    """Return the unpruned model and every narrower width asked for, widest first. Raises UserError on a width that cannot be."""
    config = stock_config(shape)
    configs = {"unpruned": config} | {f"width {width}": merged_config(config, width) for width in widths_of(shape, settings)}
    dtype = DTYPES[settings.precision]

    def loader(own: Any) -> Callable[[str], PreTrainedModel]:
        return lambda device: random_model(own, device, dtype, seed, settings.attention)

    return [Candidate(name, own, loader(own)) for name, own in configs.items()]


def of_folders(folders: Sequence[Path], settings: InferenceBenchmark) -> list[Candidate]:
    """Return the checkpoints' models, the first being the one that the others are compared with."""
    if len(folders) < 2:
        raise UserError("--model: give it twice at least, the unpruned model's folder first")
    if settings.ratios or settings.widths:
        raise UserError("settings: ratios and widths go with --shape; a checkpoint has the width it has")
    dtype = DTYPES[settings.precision]

    def loader(folder: Path) -> Callable[[str], PreTrainedModel]:
        def load(device: str) -> PreTrainedModel:
            model = checkpoint.load_model(folder, dtype)
            model.set_attn_implementation(settings.attention)
            model.to(torch.device(device))  # type: ignore[arg-type]  # transformers' annotation wraps nn.Module.to wrongly
            model.train(False)
            return model

        return load

    return [Candidate(str(folder), checkpoint.load_config(folder), loader(folder)) for folder in folders]
