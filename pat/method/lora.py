"""A trained LoRA or DoRA adapter as PEFT saves it, read for folding. Training it is PEFT's business.

Axes: O output features, I input features, R rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key
from torch import Tensor

from pat.errors import UserError
from pat.io.artefacts import read_record, write_json
from pat.method.adapter_folder import ADAPTER_CONFIG_NAME, ADAPTER_WEIGHTS_NAME, is_pat_adapter, read_lora_config, read_lora_tensors
from pat.method.adapter_kinds import refuse_what_cannot_be_folded

LISTED = 4
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
    refuse_what_cannot_be_folded(folder)
    config = read_lora_config(folder) if is_pat_adapter(folder) else _adapter_config(folder)
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
    except (TypeError, ValueError, KeyError, AttributeError, ImportError, RecursionError) as error:
        raise UserError(f"{path}: is not a config that PEFT takes: {error}") from None


def collect_updates(state: Mapping[str, Tensor], config: LoraConfig, source: str) -> dict[str, LoraUpdate]:
    """Return the updates among PEFT's adapter tensors by module name. Raises UserError on a tensor it cannot account for."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        module, found, part = name.removeprefix(PEFT_PREFIX).partition(".lora_")
        if not found or part not in ("A.weight", "B.weight", "magnitude_vector", "magnitude_vector.weight"):
            raise UserError(f"{source}: tensor {name!r} is neither LoRA's nor DoRA's; it would be lost by the merge")
        parts.setdefault(module, {})[part.removesuffix(".weight")] = tensor
    return {module: _update(module, found_parts, config, source) for module, found_parts in parts.items()}


def _update(module: str, parts: Mapping[str, Tensor], config: LoraConfig, source: str) -> LoraUpdate:
    if not {"A", "B"} <= set(parts):
        raise UserError(f"{source}: {module}: has only {', '.join(sorted(parts))} of the pair lora_A, lora_B")
    if config.use_dora != ("magnitude_vector" in parts):
        raise UserError(f"{source}: {module}: {'lacks' if config.use_dora else 'has'} a magnitude, use_dora is {config.use_dora}")
    alpha, rank = (
        given.get(get_pattern_key(list(given), module), default)  # as PEFT looks it up
        for given, default in ((config.alpha_pattern or {}, config.lora_alpha), (config.rank_pattern or {}, config.r))
    )
    shapes = [tuple(parts[name].shape) for name in ("A", "B")]
    if [len(shape) for shape in shapes] != [2, 2] or (shapes[0][0], shapes[1][1]) != (rank, rank):
        raise UserError(
            f"{source}: {module}: lora_A and lora_B are of shapes {list(shapes[0])} and {list(shapes[1])}, of rank {rank} by its config"
        )
    return LoraUpdate(parts["A"], parts["B"], alpha / (rank**0.5 if config.use_rslora else rank), parts.get("magnitude_vector"))


def check_complete(folder: Path, updates: Mapping[str, LoraUpdate], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise UserError where an adapter holds nothing for one of the base's linear layers that its config says were trained, something for
    one that it says was not, or of other sizes than the layer; `shapes` are those of the layers' weights.
    """
    config = read_lora_config(folder) if is_pat_adapter(folder) else _adapter_config(folder)
    targets = [module for module in shapes if check_target_module_exists(config, module)]
    if not targets:
        raise UserError(f"{folder / ADAPTER_CONFIG_NAME}: target_modules: {config.target_modules!r}: names no module of the base")
    lost = [module for module in targets if module not in updates]
    if lost:
        raise UserError(
            f"{folder / ADAPTER_WEIGHTS_NAME}: holds nothing for {', '.join(lost[:LISTED])} ({len(lost)} in all), which target_modules "
            "of its config names; trained tensors are lost"
        )
    if stray := [module for module in updates if module in shapes and module not in targets]:
        raise UserError(
            f"{folder / ADAPTER_WEIGHTS_NAME}: holds updates of {', '.join(stray[:LISTED])} ({len(stray)} in all), which its config names "
            "not as trained; PEFT would leave them out"
        )
    for module, update in updates.items():
        if module in shapes and (found := (update.up_OR.shape[0], update.down_RI.shape[1])) != shapes[module]:
            raise UserError(
                f"{folder / ADAPTER_WEIGHTS_NAME}: {module} is updated as {list(found)}, but the base's is {list(shapes[module])}"
            )
