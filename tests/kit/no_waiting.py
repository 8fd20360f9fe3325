"""What would have a processor wait for a GPU, refused where there is none too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

ANSWER_NEEDED = {"aten::nonzero", "aten::_local_scalar_dense", "aten::is_nonzero", "aten::masked_select", "aten::equal", "aten::_unique2"}
"""Operations that end only when the processor knows what is in a tensor; on a GPU it waits for that."""
ASSIGNED = {"aten::index_put", "aten::index_put_"}
"""Of one number: x[places] = 1 brings it to the GPU first, and waits until it is there."""


class WaitedError(AssertionError):
    """Something was asked of a tensor's values."""


class NoAnswers(TorchDispatchMode):
    """Refuses what would have a processor wait for a GPU, also where there is none."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        by_mask = [each for each in args if isinstance(each, Sequence) for each in each if isinstance(each, torch.Tensor)]
        if name in ANSWER_NEEDED or any(each.dtype == torch.bool for each in by_mask) or (name in ASSIGNED and args[2].ndim == 0):
            raise WaitedError(name)
        return func(*args, **(kwargs or {}))
