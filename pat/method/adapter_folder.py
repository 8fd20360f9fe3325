"""The adapter of a PAT run as a folder that says what it is: whatever opens LoRA adapters fails on it instead of leaving out the HSMs.

`adapter_config.json` names a `peft_type` of its own, and LoRA's settings stand one level down, where nobody else looks for a rank or a
scaling (vLLM, SGLang and llama.cpp's converter need them). `adapter_model.safetensors`, by which a Trainer knows its checkpoints, has
PEFT's names and LoRA's factors transposed, so that none of them fits even where the config is not read, and beside them a tensor without
axes: Ollama turns factors round and takes a scaling that is missing for 1, but refuses such a file. Folders of earlier versions are read
too: plain LoRA but for `pat_config.json`, or without that tensor.
The operators and the mask beside them are sparsifier.py's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor

from pat.errors import UserError
from pat.io.artefacts import read_record, write_json
from pat.io.tensors import check_numbers, read_tensors
from pat.method.lora_checks import lora_problems
from pat.settings.config import PAT_CONFIG_NAME

ADAPTER_CONFIG_NAME = "adapter_config.json"
ADAPTER_WEIGHTS_NAME = "adapter_model.safetensors"
PEFT_TYPE = "PAT"
NO_LORA = "this_is_no_lora_adapter"
"""The tensor without axes. Like every unknown name, vLLM and llama.cpp's converter refuse it too."""
OPENS_WITH = "pat.PatModel.from_pretrained(base_model, folder), of the package pruning-aware-tuning; it is no LoRA adapter"
CARD = """---
tags: [pruning-aware-tuning]
---

# An adapter of Pruning-Aware Tuning

LoRA, the operators behind every write to the residual stream, and their mask. It is no LoRA adapter: `PatModel.from_pretrained` of the
package `pruning-aware-tuning` opens it on its base model, and `pat merge` makes a stock, smaller checkpoint of the two.
"""


def write_lora(folder: Path, config: LoraConfig, tensors: Mapping[str, Tensor]) -> None:
    """Write LoRA's part of an adapter; `tensors` are under PEFT's names."""
    folder.mkdir(parents=True, exist_ok=True)
    turned = {name: _turned(name, tensor.detach().cpu()).contiguous() for name, tensor in tensors.items()}
    turned[NO_LORA] = torch.ones(())
    save_file(turned, folder / ADAPTER_WEIGHTS_NAME, metadata={"format": "pt"})  # of two entries the order would be random
    settings = config.to_dict() | {"inference_mode": True}
    record = {
        "peft_type": PEFT_TYPE,
        "opens_with": OPENS_WITH,
        "base_model_name_or_path": settings["base_model_name_or_path"],
        "lora": json.loads(json.dumps(settings, default=sorted)),  # its sets, so that equal runs give equal bytes
    }
    write_json(folder / ADAPTER_CONFIG_NAME, record)


def is_pat_adapter(folder: Path) -> bool:
    """Return whether a folder is the adapter of a PAT run, of this version or an earlier one."""
    return (folder / PAT_CONFIG_NAME).is_file()


def read_lora_config(folder: Path) -> LoraConfig:
    """Return the settings of LoRA. Raises UserError where the config is broken or another kind's."""
    path = folder / ADAPTER_CONFIG_NAME
    settings = lora_settings(folder)
    if settings.get("peft_type") != "LORA":
        raise UserError(f"{path}: holds no settings of LoRA, which the adapter of a PAT run has")
    try:
        config = LoraConfig.from_peft_type(**settings)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: is not a config that PEFT takes: {error}") from None
    assert isinstance(config, LoraConfig)
    return config


def lora_settings(folder: Path) -> dict[str, Any]:
    """Return PEFT's settings of LoRA as they are written, of a PAT run or of LoRA alone.

    Raises UserError where there are none, or some cannot be.
    """
    record = read_record(folder / ADAPTER_CONFIG_NAME)
    settings = record.get("lora") if record.get("peft_type") == PEFT_TYPE else record
    if not isinstance(settings, dict):
        raise UserError(f"{folder / ADAPTER_CONFIG_NAME}: holds no settings of LoRA, which the adapter of a PAT run has")
    for problem in lora_problems(settings) if settings.get("peft_type") == "LORA" else ():
        raise UserError(f"{folder / ADAPTER_CONFIG_NAME}: {problem}")
    return settings


def read_lora_tensors(folder: Path) -> dict[str, Tensor]:
    """Return LoRA's tensors as PEFT has them, of a PAT run or of LoRA alone. Raises UserError where the file is missing or broken."""
    path = folder / ADAPTER_WEIGHTS_NAME
    if not path.is_file():
        raise UserError(f"{path}: no such file; is {folder} an adapter folder?")
    tensors = read_tensors(path)
    check_numbers(tensors, str(path))
    if read_record(folder / ADAPTER_CONFIG_NAME).get("peft_type") != PEFT_TYPE:
        return tensors
    return {name: _turned(name, tensor) for name, tensor in tensors.items() if name != NO_LORA}


def _turned(name: str, tensor: Tensor) -> Tensor:
    """Return a factor transposed; DoRA's magnitudes are no matrices."""
    return tensor.T if tensor.dim() == 2 and ".lora_" in name else tensor


def check_same_tensors(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str) -> None:
    """Raise UserError unless an adapter's tensors are those that a model's LoRA has, in name and shape."""
    missing, unexpected = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing or unexpected:
        raise UserError(f"{source}: does not fit this model: missing {missing[:5]}, unexpected {unexpected[:5]}")
    if wrong := [name for name in expected if found[name].shape != expected[name].shape]:
        raise UserError(f"{source}: wrong shape of {wrong[:5]}")
