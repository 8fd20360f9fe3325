"""The least-squares change of one writing layer: given its pruned input x, the stream should come as near to the whole model's as possible.

A cut takes units away and leaves the columns of the others as they were. Their best values are others: W + Δ, where Δ minimises the error
that is left of the stream, Σ a·‖r − Δ·x‖² + λ‖Δ‖² over tokens, with r what the stream lacks behind the layer as it is. A token weighs
1/‖target‖², so that none counts by its size, and the few massive ones, to which every token attends, together an eighth of all.
Axes: N tokens, I inputs of the layer, D channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

RIDGE = 1e-2
"""Of the inputs' mean square. In a trial on SmolLM2-135M a tenth of it came out 1.5 % worse after tuning (docs/experiments.md)."""
MASSIVE = 5.0
"""Times the median norm: what makes a token's place in the stream a massive one."""
MASSIVE_SHARE = 1 / 8
"""Of all weight is the massive tokens'."""
TINY = 1e-12


@dataclass
class Sums:
    """Weighted sums over tokens: x·xᵀ, r·xᵀ, ‖r‖² and the target's ‖t‖², in fp64."""

    inputs_II: Tensor
    missing_DI: Tensor
    missing: Tensor
    target: Tensor

    @classmethod
    def none(cls, inputs: int, channels: int, device: torch.device) -> Sums:
        """Return the sums of no token."""
        found = (torch.zeros(shape, dtype=torch.float64, device=device) for shape in ((inputs, inputs), (channels, inputs), (), ()))
        return cls(*found)

    def add(self, x_NI: Tensor, target_ND: Tensor, there_ND: Tensor, weight_N: Tensor) -> None:
        """Add tokens: the layer's inputs, the stream that is wanted behind it and the one that is there, and what they weigh."""
        x_NI, target_ND = x_NI.float(), target_ND.float()
        missing_ND = target_ND - there_ND.float()
        weighted_NI = x_NI * weight_N[:, None]
        self.inputs_II += (weighted_NI.T @ x_NI).double()
        self.missing_DI += (missing_ND.T @ weighted_NI).double()
        self.missing += (missing_ND.square().sum(-1) * weight_N).sum(dtype=torch.float64)
        self.target += (target_ND.square().sum(-1) * weight_N).sum(dtype=torch.float64)

    def error(self, change_DI: Tensor | None = None) -> float:
        """Return the square of what is missing as a share of the target's, without or with a change of the layer."""
        left = self.missing
        if change_DI is not None:
            left = left - 2 * (change_DI * self.missing_DI).sum() + ((change_DI @ self.inputs_II) * change_DI).sum()
        return float((left / self.target.clamp(min=TINY)).clamp(min=0))


def change_of_write(sums: Sums, ridge: float = RIDGE) -> Tensor:
    """Return the change Δ, (D, I) in fp64; zero where the layer is given nothing."""
    size = sums.inputs_II.diagonal().mean().clamp(min=TINY)
    regular_II = sums.inputs_II + ridge * size * torch.eye(len(sums.inputs_II), dtype=torch.float64, device=sums.inputs_II.device)
    change_ID: Tensor = torch.linalg.solve(regular_II, sums.missing_DI.T)
    return change_ID.T


def weights_of(target_BTD: Tensor, median: Tensor) -> Tensor:
    """Return what each token weighs, (B, T), by its place in the whole model's stream, whose median norm is `median`.

    The first token of a block is a massive one, whatever its size.
    """
    square_BT = target_BTD.float().square().sum(-1)
    massive_BT = square_BT > (MASSIVE * median) ** 2
    massive_BT[:, 0] = True
    weight_BT = 1.0 / square_BT.clamp(min=TINY)
    massive, all_tokens = massive_BT.sum(), massive_BT.numel()
    share = MASSIVE_SHARE / (1.0 - MASSIVE_SHARE)
    return torch.where(massive_BT, weight_BT * (share * (all_tokens - massive) / massive).clamp(min=1.0), weight_BT)
