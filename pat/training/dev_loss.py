"""What rows that were kept apart say of a model: the loss of each, their mean, and how sure a difference of two means is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from pat.data.instructions import PadToLongest
from pat.models.token_loss import cross_entropies, learned_tokens, read
from pat.training.request import TuningRequest


@dataclass(frozen=True)
class DevLoss:
    """For every row the sum of its cross-entropies in nats, and the number of its learned tokens."""

    sums: Sequence[float]
    tokens: Sequence[int]

    @property
    def mean(self) -> float:
        """The mean cross-entropy of a token."""
        return math.fsum(self.sums) / sum(self.tokens)

    def difference_error(self, other: DevLoss) -> float | None:
        """Return the standard error of the difference of the two means, over rows, each paired with itself: a linearised ratio of sums.

        Other rows would move it so; other seeds of the tuning are not in it. None where there is one row.
        """
        differences_R = [one - two for one, two in zip(self.sums, other.sums, strict=True)]
        total, rows = sum(self.tokens), len(self.tokens)
        if rows == 1:
            return None
        mean = math.fsum(differences_R) / total
        squares = math.fsum((difference - mean * tokens) ** 2 for difference, tokens in zip(differences_R, self.tokens, strict=True))
        return math.sqrt(squares * rows / (rows - 1)) / total


@torch.no_grad()
def dev_loss(model: PeftModel, request: TuningRequest) -> DevLoss | None:
    """Return what the request's rows cost the model, None where that is not finite.

    It is the data's part of the loss alone, whatever else an arm learns from.
    """
    rows, recipe = request.rows, request.tuning
    collate, size = PadToLongest(request.tokenizer, model.device.type), recipe.known_micro_batch_size or recipe.batch_size
    bf16 = recipe.precision == "bf16"
    stock: Any = model.get_base_model()
    sums: list[float] = []
    counts: list[int] = []
    model.eval()
    for start in range(0, len(rows), size):
        batch = collate([rows[index] for index in range(start, min(start + size, len(rows)))])
        inputs = {name: tensor.to(model.device) for name, tensor in batch.items()}
        labels_BT = inputs.pop("labels")
        learned = learned_tokens(labels_BT)
        with torch.autocast(model.device.type, torch.bfloat16) if bf16 else nullcontext():
            hidden_BTD, head = read(model, stock, inputs)
            losses_N = cross_entropies(head, hidden_BTD, learned)
        row_N = learned.index_N // labels_BT.shape[1]
        sums += _by_row(losses_N, row_N, len(labels_BT)).tolist()
        counts += torch.bincount(row_N, minlength=len(labels_BT)).tolist()
    return DevLoss(sums, counts) if all(map(math.isfinite, sums)) else None


def _by_row(losses_N: Tensor, row_N: Tensor, rows: int) -> Tensor:
    """Return the sum of each row's losses, (R,), in fp64; on the CPU, where the order of a sum is always the same."""
    return torch.zeros(rows, dtype=torch.float64).index_add_(0, row_N.cpu(), losses_N.double().cpu())
