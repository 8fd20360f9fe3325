"""What LoRA's layers are given in mixed precision: their inputs as they are.

PEFT casts each input to the dtype of its factors, which are fp32, and autocast casts it back for the product. The values are the same, but
both are copies, and each layer that reads the same input keeps one of its own for backward.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from peft.helpers import disable_input_dtype_casting
from peft.tuners.lora import LoraLayer
from torch import nn


@contextmanager
def taken_as_they_are(model: nn.Module, *, autocast: bool) -> Iterator[None]:
    """While open, no LoRA layer of `model` casts its input; without `autocast`, which does so for its products, all do.

    DoRA's go on casting: they take the norms of their weights in the input's dtype.
    """
    plain = not any(isinstance(module, LoraLayer) and module.lora_variant for module in model.modules())
    with disable_input_dtype_casting(model, active=autocast and plain):
        yield
