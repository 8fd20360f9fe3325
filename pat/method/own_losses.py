"""The losses that the mask and the operators bring themselves: λ_identity·L_identity + λ_active·L_active, and their way to the gradient.

They depend on parameters alone and belong once to every optimizer step, whatever forms the data's loss: the model, a trainer that
smooths labels, a function of the user's, a loss on log-probabilities. So under PatCallback they are no part of the loss that is
differentiated: their gradient is added right before the optimizer's step, when that of the data has been summed over micro-batches and
processes, unscaled and clipped. In a loop of one's own they are part of the model's `loss`. Either way a step without them is an error.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pat.method.sparsifier import Sparsifier

MISSING = (
    "an optimizer step was taken without the losses of the mask and the operators: train with PatCallback, which adds their gradient, "
    "or, in a loop of your own, differentiate the model's `loss`, or call add_own_gradients() before optimizer.step()"
)
NOT_ADVANCED = (
    "the weights have changed since the last forward pass, but the mask's schedule has not moved on: give the trainer PatCallback(), "
    "or, in a loop of your own, call advance() after every optimizer step"
)


@dataclass(frozen=True)
class Terms:
    """The two losses, unweighted, and their weighted sum."""

    identity: Tensor
    active: Tensor
    total: Tensor


class OwnLosses:
    """The losses of a sparsifier, and whether the gradient of the optimizer step under way has them yet.

    `witness` is a parameter that every optimizer step moves: by it is seen that one was taken and `begin_step` forgotten.
    """

    def __init__(self, sparsifier: Sparsifier, witness: nn.Parameter) -> None:
        self.by_callback = False
        self._sparsifier = sparsifier
        self._witness = witness
        self.begin_step()

    def begin_step(self) -> None:
        """Forget what is known of the step before."""
        self._arrived = False
        self._trained = False
        self._before: Tensor | None = None
        self._noted: Terms | None = None

    @property
    def arrived(self) -> bool:
        """Whether the gradient of the step under way has them."""
        return self._arrived

    def check_arrived(self) -> None:
        """Raise RuntimeError where the model was trained since the last step, but not by these losses."""
        if self._trained and not self._arrived and self.terms().total.requires_grad:
            raise RuntimeError(MISSING)

    def note_forward(self) -> None:
        """Note a forward pass in training. Raises RuntimeError where an optimizer step was taken since the last and not told."""
        if not torch.is_grad_enabled():
            return
        self._trained = True
        if self.by_callback:  # which tells of every step; the comparison would have a GPU waited for
            return
        if self._before is None:
            self._before = self._witness.detach().clone()
        elif not torch.equal(self._before, self._witness):
            raise RuntimeError(NOT_ADVANCED)

    def terms(self) -> Terms:
        """Return the losses as they are now. A loss without weight is not differentiated."""
        config = self._sparsifier.config
        identity, active = self._sparsifier.identity_loss(), self._sparsifier.mask.active_loss()
        total = torch.zeros_like(identity)
        for weight, loss in ((config.weight_of_identity, identity), (config.active_weight, active)):
            if weight:
                total = total + weight * loss
        return Terms(identity, active, total)

    def for_the_loss(self) -> Terms:
        """Return the losses for a forward pass to add: with a gradient, or, where a callback adds that, their values alone."""
        if not self.by_callback:
            terms = self.terms()
            if terms.total.requires_grad:
                terms.total.register_hook(self._note_arrival)
            return terms
        if self._noted is None:  # they are the same in all micro-batches of a step
            with torch.no_grad():
                self._noted = self.terms()
        return self._noted

    def _note_arrival(self, _gradient: Tensor) -> None:
        self._arrived = True

    def add_gradients(self) -> None:
        """Add the losses' gradient to what the parameters have: once, right before the optimizer's step, in every process alike."""
        parameters = [parameter for parameter in self._sparsifier.parameters() if parameter.requires_grad]
        total = self.terms().total
        if total.requires_grad:
            # Not by backward(), whose hooks would have other processes average it or take it for a micro-batch's.
            for parameter, gradient in zip(parameters, torch.autograd.grad(total, parameters, allow_unused=True), strict=True):
                if gradient is not None:
                    parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        self._arrived = True
