"""How the mask's proxy learns, whatever trains the rest of the model: from what closing a channel would cost the loss.

Owns the gradients that reach the proxy, their running means and the direction in which the proxy goes. The schedule, the count and the
membership are mask.py's. The proxy's gradient is taken as soon as backward has formed it, so no optimizer and no clipping sees it.

Why not Adam, entry by entry. At M = 1 a pretrained model is stationary under the scale of a channel: the mean of the gradient is noise
of either sign, and dividing each entry by its own size takes away the one thing that tells channels apart, which is that size. So

- `saliency` estimates what closing the channel costs to second order, −g·M + ½·h·M². For h, the curvature, stands the Fisher
  information, N·E[g²] with g the gradient of a batch of N tokens: what the loss feels of a channel shows in it from the first steps on,
  and in the first-order term as soon as gates differ. Until then that term is noise, of a size that is known, and shrunk accordingly;
- `gradient` goes down the gradient with momentum and one second moment for the whole proxy, so that large entries stay large.

Axes: D hidden channels.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributed import all_reduce, get_world_size, is_available, is_initialized

Rule = Literal["saliency", "gradient"]

MEMORY = 0.9
"""Of the running means of gradients and of what closing costs."""
MEMORY_OF_SIZE = 0.999
"""Of the one second moment of `gradient`."""
UNCOUNTED = 4096.0
"""Tokens of a batch where a loss is formed past the model's forward pass, so that nobody has counted them."""
FARTHEST = 3.0
UNFELT = 1e-12
"""A gate whose slope is smaller than this is saturated: what is left of its gradient, squared, is below fp32's range."""


class ProxyLearner(nn.Module):
    """The proxy's gradients since the last step, and what is remembered of earlier ones.

    `first_order` and `second_order`, (D,), are the running means of g·M and N·(g·M)² (`saliency`), or of the gradient and of its mean
    square (`gradient`), over optimizer steps: into how many parts a batch is cut, and on how many processes, changes nothing. They are in
    the state dict, so a run resumes.
    """

    first_order: Tensor
    second_order: Tensor
    steps: Tensor
    gradient: Tensor
    tokens: Tensor

    def __init__(self, hidden_size: int, rule: Rule) -> None:
        super().__init__()
        self.rule = rule
        for name in ("first_order", "second_order"):
            self.register_buffer(name, torch.zeros(hidden_size))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("gradient", torch.zeros(hidden_size), persistent=False)
        self.register_buffer("tokens", torch.zeros(()), persistent=False)
        self._pending: Tensor | float = 0.0

    def note_tokens(self, count: Tensor | int) -> None:
        """Say of how many tokens the loss of the forward pass under way is made."""
        self._pending = count

    @torch.no_grad()
    def take(self, proxy_D: Tensor) -> None:
        """Take the gradient that a backward pass has left on the proxy away from it; a hook of the proxy's.

        Zeros stay in its place: other hooks, those that average gradients over processes, expect something there.
        """
        if proxy_D.grad is None:
            return
        self.gradient += proxy_D.grad.float()
        self.tokens += self._pending
        self._pending = 0.0
        proxy_D.grad = torch.zeros_like(proxy_D.grad)

    @torch.no_grad()
    def direction(self, gate_D: Tensor, slope_D: Tensor) -> Tensor:
        """Return where the proxy goes, (D,), about 1 in size, from the gradients since the last call; they are let go.

        `gate_D` is M, `slope_D` its derivative by the proxy.
        """
        self._gather()
        self.tokens.copy_(torch.where(self.tokens > 0, self.tokens, UNCOUNTED))
        self.steps += 1
        found_D = self._by_saliency(gate_D, slope_D) if self.rule == "saliency" else self._by_gradient()
        self.gradient.zero_()
        self.tokens.zero_()
        return found_D

    def _gather(self) -> None:
        """Average the gradient over the processes of a tuning, each of which has seen its rows, and add up their tokens."""
        if is_available() and is_initialized() and get_world_size() > 1:
            gathered = torch.cat([self.gradient, self.tokens[None]])
            all_reduce(gathered)
            self.gradient.copy_(gathered[:-1] / get_world_size())
            self.tokens.copy_(gathered[-1])

    def _by_saliency(self, gate_D: Tensor, slope_D: Tensor) -> Tensor:
        """Return the costs of closing, brought to one scale: cheap channels below 0, dear ones above."""
        felt_D = slope_D > UNFELT
        closing_D = self.gradient * gate_D / slope_D.clamp(min=UNFELT)  # from ∂L/∂w to M·∂L/∂M
        for mean_D, now_D in ((self.first_order, closing_D), (self.second_order, self.tokens * closing_D.square())):
            mean_D.copy_(torch.where(felt_D, torch.lerp(now_D, mean_D, MEMORY), mean_D))
        return to_scale(0.5 * self.second_order - self._trusted() * self.first_order)

    def _trusted(self) -> Tensor:
        """Return the share of the first-order terms, squared and summed, that the noise of the batches does not explain (James-Stein)."""
        forgotten = MEMORY**self.steps
        of_a_batch = self.second_order.sum() / self.tokens.clamp(min=1.0)
        noise = of_a_batch * (1.0 - MEMORY) / (1.0 + MEMORY) * (1.0 + forgotten)
        found = self.first_order.square().sum().clamp(min=torch.finfo(torch.float32).tiny)
        return (1.0 - noise / found).clamp(min=0.0)

    def _by_gradient(self) -> Tensor:
        self.first_order.lerp_(self.gradient, 1.0 - MEMORY)
        self.second_order.lerp_(self.gradient.square().mean().expand_as(self.gradient), 1.0 - MEMORY_OF_SIZE)
        mean_D = self.first_order / (1.0 - MEMORY**self.steps)
        size = (self.second_order.mean() / (1.0 - MEMORY_OF_SIZE**self.steps)).sqrt()
        return torch.where(size > 0, -mean_D / size, 0.0)


def to_scale(cost_D: Tensor) -> Tensor:
    """Return the entries from their median on, in units of half the width of the middle two thirds, cut off at ±3.

    A few channels cost hundreds of times what others do: by the mean and the variance they would hold all others together.
    """
    sorted_D = cost_D.sort().values
    low, middle, high = (sorted_D[round(share * (len(cost_D) - 1))] for share in (1 / 6, 1 / 2, 5 / 6))
    unit = (0.5 * (high - low)).clamp(min=torch.finfo(torch.float32).tiny)
    return ((cost_D - middle) / unit).clamp(-FARTHEST, FARTHEST)


def spread(importance_D: Tensor) -> Tensor:
    """Return the places of the entries in ascending order, moved to mean 0 and scaled to variance 1; of equal ones the later is lower.

    All zero where all are equal: nothing is known of their order.
    """
    order_D = torch.argsort(importance_D.flip(0), stable=True)
    place_D = torch.empty_like(importance_D)
    place_D[len(order_D) - 1 - order_D] = torch.arange(len(order_D), device=importance_D.device).to(importance_D)
    known = (importance_D != importance_D[0]).any()
    return known * (place_D - place_D.mean()) / place_D.std(correction=0)
