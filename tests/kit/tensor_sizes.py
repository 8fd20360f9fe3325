"""How large tensors get while some code runs, seen from its calls of torch: what it holds of a long text at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode


class Largest(TorchFunctionMode):
    """While open, notes how many entries the largest tensor had that any function of torch returned."""

    def __init__(self) -> None:
        super().__init__()
        self.entries = 0

    def __torch_function__(
        self, function: Callable[..., Any], _types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        found = function(*args, **(kwargs or {}))
        sizes = [one.numel() for one in (found if isinstance(found, tuple | list) else [found]) if isinstance(one, Tensor)]
        self.entries = max([self.entries, *sizes])
        return found
