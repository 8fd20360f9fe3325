"""The Unified Sparsification Mask: one proxy, one gate, one schedule, shared by every write to the residual stream.

Owns the gate, the count of kept channels and when it is settled which ones live (docs/method.md); release_mask.py has the rules of the
released code. Knows nothing of the model.
Axes: D hidden channels.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from pat.errors import SettingError
from pat.method.mask_learning import ProxyLearner, spread
from pat.settings.config import PatConfig

SETTLED_PROXY = 0.3
"""Size to which settled proxies are drawn: large enough to close early, small enough that the gate closes slowly."""
DRAW_RATE = 0.1


def temperature(step: int, milestone_step: int) -> float:
    """τ(s) = 1 / (1 − ln s / ln s0) for s < s0, infinite from the milestone on; 0 at s = 0 (docs/method.md, equation 6)."""
    if step >= milestone_step:
        return math.inf
    if step == 0:
        return 0.0
    return 1.0 / (1.0 - math.log(step) / math.log(milestone_step))


def offset(step: int, milestone_step: int) -> float:
    """β(s) = 1/2 − s/s0 for s < s0/2, 0 after (docs/method.md, equation 7)."""
    return 0.0 if step >= milestone_step else max(0.5 - step / milestone_step, 0.0)


def gate(proxy_D: Tensor, temperature: Tensor | float, offset: Tensor | float) -> Tensor:
    """M = sigmoid(τ·w) + β, shape (D,) (docs/method.md, equation 8).

    Before the milestone only: from there on the mask is its 0/1 membership.
    """
    return torch.sigmoid(temperature * proxy_D) + offset


def straight_through_count(proxy_D: Tensor, open_D: Tensor) -> Tensor:
    """The number of open channels as a scalar whose gradient is that of Σ w (the straight-through estimator of L_active)."""
    return (open_D.to(proxy_D.dtype) + proxy_D - proxy_D.detach()).sum()


def largest(proxy_D: Tensor, width: int) -> Tensor:
    """Boolean (D,): the `width` largest entries; of equal entries the earlier ones."""
    order = torch.argsort(proxy_D, descending=True, stable=True)
    kept_D = torch.zeros_like(proxy_D, dtype=torch.bool)
    return kept_D.scatter_(0, order[:width], value=True)  # an assignment would bring the `True` to a GPU, and wait for that


class UnifiedMask(nn.Module):
    """The proxy w, its schedule and its state; `forward()` gives the gate M of the present step as (D,) in fp32 at least.

    `advance()` belongs after every optimizer step. The state (proxy, membership, step) is in the state dict, so a run resumes.
    A fixed mask keeps the channels of largest `importance_D`, equal ones by index; without it the last ones, until a state is loaded. A
    trained one starts in its order, or with all proxies alike; unless Adam is to move it, `advance()` lets it learn from the gradients
    that have come to the proxy since, which it takes away from there (mask_learning.py).
    """

    proxy: nn.Parameter
    learner: ProxyLearner | None
    kept: Tensor
    settled_proxy: Tensor
    step_count: Tensor
    temperature: Tensor
    offset: Tensor
    remaining: Tensor
    first_temperature = 0.0

    def __init__(self, hidden_size: int, width: int, config: PatConfig, importance_D: Tensor | None = None) -> None:
        super().__init__()
        if not 0 < width <= hidden_size:
            raise SettingError(f"width={width}: must lie in 1..hidden_size={hidden_size}")
        self.width = width
        self.config = config
        # The trained mask's membership is filled in when it is settled.
        kept_D = largest(torch.arange(hidden_size) if importance_D is None else importance_D.cpu(), width)
        self.proxy = nn.Parameter(self._first_proxy(kept_D, importance_D), requires_grad=not config.fixed_mask)
        self.learner = None
        if config.learning != "adam" and not config.fixed_mask:
            self.learner = ProxyLearner(hidden_size, config.learning)
            self._hand_gradients_over()
        self.register_buffer("kept", kept_D)
        self.register_buffer("settled_proxy", torch.zeros(hidden_size))
        self.register_buffer("step_count", torch.zeros((), dtype=torch.int64))
        # The schedule's figures as tensors, so that compiled code is not rebuilt each step, and the step as a Python number, because
        # reading a tensor from the device in every forward would stall it.
        self._step = 0
        # The same for whether the gate is shut: compiled code holds on to a module's numbers, and the step changes each time.
        self._shut = self.closed
        self.register_buffer("temperature", torch.full((), self.first_temperature), persistent=False)
        self.register_buffer("offset", torch.full((), 0.5), persistent=False)
        self.register_buffer("remaining", torch.ones(()), persistent=False)
        self.register_load_state_dict_post_hook(_read_state_back)  # type: ignore[no-untyped-call]

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._hand_gradients_over()  # a copy's parameters have lost their hooks

    def _hand_gradients_over(self) -> None:
        if self.learner is not None:
            self.proxy.register_post_accumulate_grad_hook(self.learner.take)

    def _first_proxy(self, kept_D: Tensor, importance_D: Tensor | None) -> Tensor:
        """Return where w starts: at zero, spread in an order, or where settled proxies are drawn to, if an importance has settled it."""
        if self.config.mask == "trained" and importance_D is not None:
            place_D = spread(importance_D.detach().cpu().float())
            return SETTLED_PROXY * (place_D - torch.sort(place_D, descending=True).values[self.width - 1 : self.width + 1].mean())
        if self.config.mask in ("trained", "frozen"):
            return torch.zeros(len(kept_D))
        return torch.where(kept_D, SETTLED_PROXY, -SETTLED_PROXY)

    @property
    def step(self) -> int:
        """Optimizer steps taken so far (s)."""
        return self._step

    @property
    def closed(self) -> bool:
        """Whether the mask is exactly 0/1: the milestone is behind, or nothing is pruned."""
        if self.width == self.proxy.numel() or self.config.closing == "at-once":
            return True
        return self.config.total_steps is not None and self._step >= self.config.milestone_step

    @property
    def settled(self) -> bool:
        """Whether it is decided which channels live."""
        return self.config.fixed_mask or (self.config.total_steps is not None and self._step >= self.config.decide_step)

    @property
    def finished(self) -> bool:
        """Whether its schedule is run through, so that the model may be merged."""
        return self.closed

    @property
    def final_width(self) -> int:
        """Channels that the merged model has."""
        return self.width

    def members(self) -> Tensor:
        """Boolean (D,): the channels that live in the merged model."""
        return self.forward().detach().bool()

    def schedule(self, step: int) -> tuple[float, float]:
        """Return τ and β of a step."""
        milestone_step = self.config.milestone_step
        return temperature(step, milestone_step), offset(step, milestone_step)

    def forward(self) -> Tensor:
        if self.width == self.proxy.numel():
            return torch.ones_like(self.proxy, dtype=torch.float32)
        if self._shut:
            return self.kept.float()
        if self.config.mask == "frozen":
            return torch.where(self.kept, 1.0, self.remaining)  # table 2 of the paper: attenuated linearly
        at_least_fp32 = torch.promote_types(self.proxy.dtype, torch.float32)
        return gate(self.proxy.to(at_least_fp32), self.temperature, self.offset)

    def active_loss(self) -> Tensor:
        """L_active = |N_target − Σ 1[w > 0]| with a straight-through gradient (docs/method.md, equation 9).

        Zero where the count is held otherwise: by centring, by a fixed mask, or because membership is settled. Without a gradient where
        the proxy learns by itself: `advance` takes that step, which would drown what the data says of the channels, and most of all
        other gradients in one clipped norm.
        """
        if self.config.keeps_count == "centre" or self.settled:
            return self.proxy.new_zeros(())
        distance = (self.width - straight_through_count(self.proxy, self.proxy > 0)).abs()
        return distance if self.learner is None else distance.detach()

    def kept_count(self) -> int:
        """Channels that are open at present: Σ 1[w > 0], or the members of a fixed mask."""
        if self.config.fixed_mask or self.closed:
            return int(self.kept.sum())
        return int((self.proxy > 0).sum())

    @torch.no_grad()
    def advance(self) -> None:
        """Take one step of the schedule: learn, hold the count, settle membership, draw settled proxies apart, close at the milestone."""
        was_settled = self.settled
        if self.learner is not None and not was_settled and self.width < self.proxy.numel():
            self._learn(self.learner)
        self._set_step(self._step + 1)
        if self.config.fixed_mask or self.width == self.proxy.numel():
            return
        if not self.settled:
            if self.config.keeps_count == "centre":
                self._centre()
            return
        if not was_settled:
            self.kept.copy_(largest(self.proxy, self.width))
            self.settled_proxy.copy_(self.proxy)
        self._draw_apart()

    def _learn(self, learner: ProxyLearner) -> None:
        """Move the proxy where its learner says, and where L_active alone holds the count, all of it towards that count."""
        opened_D = torch.sigmoid(self.temperature * self.proxy.float())
        slope_D = self.temperature * opened_D * (1.0 - opened_D)
        step_D = learner.direction(opened_D + self.offset, slope_D)
        if self.config.keeps_count == "loss":
            step_D = step_D + self.config.active_weight * (self.width - (self.proxy > 0).sum()).sign()
        self.proxy.add_(step_D.to(self.proxy.dtype), alpha=self.config.proxy_rate)

    def _centre(self) -> None:
        """Shift the whole proxy by one constant so that exactly `width` entries are positive."""
        ordered_D = torch.sort(self.proxy, descending=True).values
        self.proxy.sub_((ordered_D[self.width - 1] + ordered_D[self.width]) / 2)

    def _draw_apart(self) -> None:
        """Move settled proxies towards ±SETTLED_PROXY, whatever the optimizer did to them; at the milestone put them there."""
        goal_D = torch.where(self.kept, SETTLED_PROXY, -SETTLED_PROXY).to(self.proxy.dtype)
        rate = 1.0 if self.closed else DRAW_RATE
        self.settled_proxy.lerp_(goal_D, rate)
        self.proxy.copy_(self.settled_proxy)

    def _set_step(self, step: int) -> None:
        self._step = step
        self.step_count.fill_(step)
        self._shut = self.closed
        if self.closed:
            return
        if step == 0:  # a schedule need not be planned yet
            tau, beta, remaining = self.first_temperature, 0.5, 1.0
        else:
            (tau, beta), remaining = self.schedule(step), 1.0 - step / self.config.milestone_step
        self.temperature.fill_(tau)
        self.offset.fill_(beta)
        self.remaining.fill_(remaining)


def _read_state_back(mask: nn.Module, _incompatible: object) -> None:
    """After loading, bring the schedule's figures in line with the loaded step."""
    assert isinstance(mask, UnifiedMask)
    mask._set_step(int(mask.step_count))
