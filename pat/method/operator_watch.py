"""What a tuning run's operators do: how far they have left D = I and their start, and which of the losses moves them.

Read at the steps that are logged, from the factors alone. Axes: D hidden channels, R operator rank, S rows watched of the R.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import fmean

import torch
from torch import Tensor, nn

from pat.method.hsm import FactoredOperator
from pat.method.model import PatModel

FIELDS = ("operator_distance", "down_moved", "up_moved", "instruct_gradient", "identity_gradient")
ROWS_WATCHED = 16
"""Rows of L0 and columns of L1 whose start is kept, evenly spread: all of a small operator's, and little memory for a large one's."""
CLIPPING_EPS = 1e-6
"""What torch adds to the norm that it divides by."""


class OperatorWatch:
    """The operators of one model from where they start, which is where they are when this is made.

    A resumed run's model starts as its seed has it before the checkpoint is loaded; made then, the watch needs nothing from a checkpoint.
    """

    def __init__(self, model: PatModel) -> None:
        self.model = model
        hsms = model.sparsifier.by_write().values()
        self._factored = [hsm.operator for hsm in hsms if isinstance(hsm.operator, FactoredOperator)]
        self._starts = [_watched(operator) for operator in self._factored]
        self._norms: Tensor | None = None

    @torch.no_grad()
    def figures(self, grad_norm: float | None, max_grad_norm: float) -> dict[str, float | None]:
        """Return `FIELDS`, each None where there is nothing of the kind; the gradients are those of the last `look_at_gradients`.

        `operator_distance` is the mean of ‖D − I‖ over the HSMs with an operator; `down_moved` and `up_moved` are how far L0 and L1 are
        from their start, in units of an orthonormal factor's norm; the gradients' norms are those on all operators together, weights
        included and before clipping, which `grad_norm`, the norm before it, undoes.
        """
        figures: dict[str, float | None] = dict.fromkeys(FIELDS)
        operators = [hsm.operator for hsm in self.model.sparsifier.by_write().values() if any(True for _ in hsm.operator.parameters())]
        if operators:
            figures["operator_distance"] = _mean(operator.distance_from_identity() for operator in operators)
        pairs = [(start, _watched(operator)) for start, operator in zip(self._starts, self._factored, strict=True)]
        if pairs:
            figures["down_moved"] = _mean(_moved(start[0], now[0]) for start, now in pairs)
            figures["up_moved"] = _mean(_moved(start[1], now[1]) for start, now in pairs)
        if self._norms is not None:
            figures["instruct_gradient"], figures["identity_gradient"] = self._gradients(grad_norm, max_grad_norm)
            self._norms = None
        return figures

    def look_at_gradients(self) -> None:
        """Note what `figures` needs of the gradients on the operators right before an optimizer step: they are soon gone."""
        hsms = self.model.sparsifier.by_write().values()
        parameters = [parameter for hsm in hsms for parameter in hsm.operator.parameters() if parameter.grad is not None]
        self._norms = None
        if not parameters:
            return
        own = self._identity_gradients(parameters)
        # Of the two, the data's alone is clipped, and the other's may or may not have been added yet, by the callback that does so.
        added = own if self.model.own_losses.arrived else [None] * len(own)
        data = [_less(parameter.grad, part) for parameter, part in zip(parameters, added, strict=True)]
        self._norms = _together([_norm(data), _norm(own)])

    def _identity_gradients(self, parameters: Sequence[nn.Parameter]) -> Sequence[Tensor | None]:
        with torch.enable_grad():
            loss = self.model.pat_config.weight_of_identity * self.model.sparsifier.identity_loss()
        return torch.autograd.grad(loss, parameters, allow_unused=True) if loss.requires_grad else [None] * len(parameters)

    def _gradients(self, grad_norm: float | None, max_grad_norm: float) -> tuple[float, float]:
        """Return the norms of the gradients that the data, before it was clipped, and the identity loss bring."""
        assert self._norms is not None
        data, own = self._norms.tolist()
        kept = min(1.0, max_grad_norm / (grad_norm + CLIPPING_EPS)) if max_grad_norm > 0 and grad_norm is not None else 1.0
        return data / kept, own


def _watched(operator: FactoredOperator) -> tuple[Tensor, Tensor]:
    """Return copies of rows of L0 and columns of L1, (S, D) each."""
    rank = len(operator.down)
    rows_S = torch.linspace(0, rank - 1, min(rank, ROWS_WATCHED)).round().long().to(operator.down.device)
    return operator.down.detach()[rows_S], operator.up.detach().T[rows_S]


def _moved(start_SD: Tensor, now_SD: Tensor) -> Tensor:
    distance: Tensor = torch.linalg.matrix_norm((now_SD - start_SD.to(now_SD.device)).float())
    return distance / math.sqrt(len(start_SD))


def _mean(values: Iterable[Tensor]) -> float:
    return fmean(_together(list(values)).tolist())


def _together(values: Sequence[Tensor]) -> Tensor:
    """Return scalars as one tensor, on the device of the first, so that they are read at once."""
    return torch.stack([value.to(values[0].device) for value in values])


def _less(whole: Tensor | None, part: Tensor | None) -> Tensor | None:
    return whole if whole is None or part is None else whole - part


def _norm(gradients: Sequence[Tensor | None]) -> Tensor:
    """Return the norm of all gradients as one vector; one that is None is zero."""
    norms: list[Tensor] = [torch.linalg.vector_norm(gradient.float()) for gradient in gradients if gradient is not None]
    return torch.linalg.vector_norm(_together(norms)) if norms else torch.zeros(())
