"""Which tokens of a batch are learned, found out where the batch is made.

The loss is taken of so many tokens as are learned. Were they counted in labels that lie on a GPU, the processor would wait in every step
for all that went before, instead of preparing what comes next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

from torch import Tensor

from pat.models.token_loss import ForetoldTokens, learned_tokens

INDEX, TARGETS = "learned_index", "learned_targets"
Collate = Callable[[Sequence[Any]], Any]


class WithLearnedPlaces:
    """Collates as another collator does, and lays beside the labels what `learned_tokens` says of them."""

    def __init__(self, collate: Collate) -> None:
        self.collate = collate

    def __call__(self, rows: Sequence[Any]) -> Any:
        batch = self.collate(rows)
        labels_BT = batch.get("labels") if hasattr(batch, "get") else None
        if not are_of_tokens(labels_BT):
            return batch
        tokens = learned_tokens(labels_BT)
        return {**batch, INDEX: tokens.index_N, TARGETS: tokens.targets_N}


def are_of_tokens(labels: object) -> TypeGuard[Tensor]:
    """Return whether labels are a tensor of rows and tokens, (B, T)."""
    return isinstance(labels, Tensor) and labels.dim() == 2


def taken_from(inputs: dict[str, Any]) -> tuple[dict[str, Any], ForetoldTokens | None]:
    """Return a batch without what WithLearnedPlaces has laid beside it, and that, where it has."""
    index_N, targets_N = inputs.get(INDEX), inputs.get(TARGETS)
    if index_N is None or targets_N is None:
        return inputs, None
    return {name: value for name, value in inputs.items() if name not in (INDEX, TARGETS)}, ForetoldTokens(index_N, targets_N)
