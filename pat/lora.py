"""A trained LoRA or DoRA adapter as PEFT saves it, read for folding. Training it is PEFT's business.

Axes: O output features, I input features, R rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig
from torch import Tensor

from pat.adapter_folder import ADAPTER_CONFIG_NAME, ADAPTER_WEIGHTS_NAME, is_pat_adapter, read_lora_config, read_lora_tensors
from pat.artefacts import read_record, write_json
from pat.errors import UserError

PEFT_PREFIX = "base_model.model."


@dataclass(frozen=True)
class LoraUpdate:
    """One module's trained update; `magnitude_O` is there for DoRA alone."""

    down_RI: Tensor
    up_OR: Tensor
    scaling: float
    magnitude_O: Tensor | None = None

    def fold(self, weight_OI: Tensor) -> Tensor:
        """W + s·B·A, and for DoRA m ⊙ (W + s·B·A) / ‖W + s·B·A‖ by rows; W's dtype."""
        updated_OI = torch.addmm(weight_OI, self.up_OR.to(weight_OI), self.down_RI.to(weight_OI), alpha=self.scaling)
        if self.magnitude_O is None:
            return updated_OI
        norm_O = torch.linalg.vector_norm(updated_OI, dim=1)
        scale_O: Tensor = self.magnitude_O.to(weight_OI) / norm_O
        return scale_O[:, None] * updated_OI


def read_adapter(folder: Path) -> dict[str, LoraUpdate]:
    """Return the updates of an adapter folder by module name. Raises UserError on a kind of adapter that cannot be folded."""
    path = folder / ADAPTER_WEIGHTS_NAME
    if not path.is_file():
        raise UserError(f"{path}: no such file; is {folder} an adapter folder?")
    config = read_lora_config(folder) if is_pat_adapter(folder) else _adapter_config(folder)
    if not isinstance(config, LoraConfig):
        raise UserError(f"{folder}: holds a {config.peft_type} adapter; only LoRA and DoRA can be folded")
    _refuse_what_cannot_be_folded(config, folder)
    return collect_updates(read_lora_tensors(folder), config, str(path))


def sort_targets(folder: Path) -> None:
    """Put the target modules of a saved LoRA adapter in order: PEFT keeps them as a set, and equal runs shall give equal bytes."""
    path = folder / ADAPTER_CONFIG_NAME
    config = read_record(path)
    if "target_modules" in config:
        write_json(path, {**config, "target_modules": sorted(config["target_modules"])})


def _adapter_config(folder: Path) -> LoraConfig:
    path = folder / ADAPTER_CONFIG_NAME
    read_record(path)
    try:
        return LoraConfig.from_pretrained(str(folder))  # type: ignore[no-any-return]  # PEFT's is untyped
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: is not a config that PEFT takes: {error}") from None


def collect_updates(state: Mapping[str, Tensor], config: LoraConfig, source: str) -> dict[str, LoraUpdate]:
    """Return the updates among PEFT's adapter tensors by module name. Raises UserError on a tensor it cannot account for."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        module, found, part = name.removeprefix(PEFT_PREFIX).partition(".lora_")
        if not found or part not in ("A.weight", "B.weight", "magnitude_vector", "magnitude_vector.weight"):
            raise UserError(f"{source}: tensor {name!r} is neither LoRA's nor DoRA's; it would be lost by the merge")
        parts.setdefault(module, {})[part.removesuffix(".weight")] = tensor
    rank = config.r**0.5 if config.use_rslora else config.r
    return {module: _update(module, found_parts, config.lora_alpha / rank, source) for module, found_parts in parts.items()}


def _update(module: str, parts: Mapping[str, Tensor], scaling: float, source: str) -> LoraUpdate:
    if not {"A", "B"} <= set(parts):
        raise UserError(f"{source}: {module}: has only {', '.join(sorted(parts))} of the pair lora_A, lora_B")
    return LoraUpdate(parts["A"], parts["B"], scaling, parts.get("magnitude_vector"))


def _refuse_what_cannot_be_folded(config: LoraConfig, folder: Path) -> None:
    plain = {
        "bias": config.bias == "none",
        "fan_in_fan_out": not config.fan_in_fan_out,
        "rank_pattern": not config.rank_pattern,
        "alpha_pattern": not config.alpha_pattern,
        "modules_to_save": not set(config.modules_to_save or ()) - {"classifier", "score"},
    }
    if odd := [field for field, as_expected in plain.items() if not as_expected]:
        raise UserError(f"{folder / 'adapter_config.json'}: {', '.join(odd)}: set in a way that the merge does not fold; use the default")
