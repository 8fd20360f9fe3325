"""fp32 arithmetic on weights that are stored in half precision, one layer's weights in fp32 at a time.

A comparison then shows what was stored, and not how a processor rounds on the way; memory stays that of the stored weights.
"""

from __future__ import annotations

from typing import Any

import torch
from accelerate import init_empty_weights
from peft import PeftModel
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import AutoModelForCausalLM

from pat.families.known import family_of
from pat.models.hooks import removed_behind

HALVES = (torch.float16, torch.bfloat16)


@torch.no_grad()
def wide_logits(model: nn.Module, ids_BT: Tensor) -> Tensor:
    """Return the logits of a stock model, or of a PeftModel around one, in fp32 throughout; (B, T, V).

    The weights are afterwards as they were; constants that came rounded stay fp32.
    """
    stock: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    family, count = family_of(stock.config), stock.config.num_hidden_layers
    _widen_buffers(stock)
    names = (*family.entrance, *(f"{family.layers}.{layer}" for layer in range(count)), family.final_norm, family.head)
    hooks = [hook for name in names for hook in _widen_while_it_runs(stock.get_submodule(name))]
    with removed_behind(hooks):
        whole: Any = model.eval()
        logits: Tensor = whole(input_ids=ids_BT, use_cache=False).logits
    return logits.float()


def _widen_buffers(stock: nn.Module) -> None:
    """Replace constants that were rounded when the model was made, such as a factor on the embedding, by those of an fp32 model."""
    halves = {name: buffer for name, buffer in stock.named_buffers() if buffer.dtype in HALVES}
    if not halves:
        return
    with init_empty_weights(include_buffers=False):
        fresh = AutoModelForCausalLM.from_config(stock.config, dtype=torch.float32)
    for name, buffer in halves.items():
        buffer.data = fresh.get_buffer(name).to(buffer.device)


def _widen_while_it_runs(module: nn.Module) -> tuple[RemovableHandle, RemovableHandle]:
    """Give a module fp32 weights for the time of its forward pass, until the hooks that are returned are removed."""
    stored: list[tuple[nn.Parameter, Tensor]] = []

    def widen(_module: nn.Module, _inputs: Any) -> None:
        stored[:] = [(parameter, parameter.data) for parameter in module.parameters() if parameter.dtype in HALVES]
        for parameter, _ in stored:
            parameter.data = parameter.data.float()

    def restore(_module: nn.Module, _inputs: Any, _output: Any) -> None:
        for parameter, data in stored:
            parameter.data = data
        stored.clear()

    return module.register_forward_pre_hook(widen), module.register_forward_hook(restore)
