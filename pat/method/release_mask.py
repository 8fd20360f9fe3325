"""The mask by the rules of the authors' released code: soft to the last step, rounded for inference alone.

docs/method.md, "Where the released code differs", lists them.
Losses alone count its channels and draw them apart, and train its proxy to the end; from `decide_step` on, 0.8 of the milestone, its
temperature stays as it is. Axes: D hidden channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pat.method.mask import UnifiedMask, largest, offset, straight_through_count, temperature
from pat.settings.config import PatConfig

PULLED_TO = 0.5
COUNT_FACTOR = 10.0


class ReleaseMask(UnifiedMask):
    """A channel is open from w = 0 on. Behind the milestone the model may be merged, and out of training its mask is exactly 0/1.

    Rounding keeps the N_target largest proxies: a departure, so that stock software takes the width. With `exact_count` off in the
    config it keeps the open ones, as the release does, however many they are.
    """

    first_temperature = 1.0
    """Step 0 is taken for 1."""

    def __init__(self, hidden_size: int, width: int, config: PatConfig, importance_D: Tensor | None = None) -> None:
        super().__init__(hidden_size, width, config, importance_D)
        self._rounded = self.finished

    @property
    def closed(self) -> bool:
        """Whether the mask is 0/1 in training too: only where nothing is pruned."""
        return self.width == self.proxy.numel()

    @property
    def settled(self) -> bool:
        """Never: the proxy is trained to the last step."""
        return False

    @property
    def finished(self) -> bool:
        return self.closed or (self.config.total_steps is not None and self._step >= self.config.milestone_step)

    @property
    def final_width(self) -> int:
        return int(self.kept.sum()) if self.finished else self.width

    def members(self) -> Tensor:
        proxy_D = self.proxy.detach()
        return largest(proxy_D, self.width) if self.config.exact_count else proxy_D >= 0

    def schedule(self, step: int) -> tuple[float, float]:
        milestone_step = self.config.milestone_step
        heated = min(max(step, 1), self.config.decide_step, milestone_step - 1)
        return temperature(heated, milestone_step), offset(step, milestone_step)

    def forward(self) -> Tensor:
        """Return the gate M, soft in training; out of training, behind the milestone, its membership."""
        return self.kept.float() if self._rounded and not self.training else super().forward()

    def active_loss(self) -> Tensor:
        """10·|N_target − Σ 1[w ≥ 0]|/N_target and two pulls: the mean of (w − 1/2)² over the open side, of (w + 1/2)² over the other."""
        if self.closed:
            return self.proxy.new_zeros(())
        open_D = self.proxy.detach() >= 0
        pulled = ((open_D, PULLED_TO), (~open_D, -PULLED_TO))
        # An empty side pulls at nothing; which channels are on a side is left to the device, that no step waits for it.
        sides = [(side_D * (self.proxy - goal).square()).sum() / side_D.sum().clamp(min=1) for side_D, goal in pulled]
        pulls = torch.stack(sides).sum()
        if self.config.keeps_count == "centre":
            return pulls
        return COUNT_FACTOR * (self.width - straight_through_count(self.proxy, open_D)).abs() / self.width + pulls

    def kept_count(self) -> int:
        return int((self.proxy >= 0).sum())

    @torch.no_grad()
    def advance(self) -> None:
        if self.config.keeps_count == "centre" and not self.closed:
            self._centre()
        self._set_step(self._step + 1)

    def _set_step(self, step: int) -> None:
        super()._set_step(step)
        self._rounded = self.finished
        if self._rounded:
            self.kept.copy_(self.members())
