"""Hybrid Sparsification Modules: a linear map D after each write to the residual stream, then the shared mask.

Owns the Hybrid-Identity-Operator and its ablations (docs/method.md); orthogonality.py has the identity loss. Knows nothing of models.
Axes: D hidden channels (output side of a write), R operator rank, I input features of the folded weight.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

from pat.errors import SettingError
from pat.method.gated_operator import gated
from pat.method.mask import UnifiedMask
from pat.settings.config import PatConfig


class Operator(nn.Module):
    """A linear map D on the hidden axis that can be folded into the weight before it."""

    @abstractmethod
    def forward(self, y: Tensor) -> Tensor:
        """D·y on the last axis, y's shape and dtype."""

    def gated(self, y: Tensor, gate_D: Tensor) -> Tensor:
        """gate ⊙ (D·y)."""
        z: Tensor = self(y) * gate_D
        return z

    @abstractmethod
    def fold(self, weight_DI: Tensor) -> Tensor:
        """D·W in W's dtype."""

    def factors(self) -> tuple[Tensor, Tensor] | None:
        """Return (down_RD, up_DR) with D = I + up·down, in the parameters' dtype; None where D = I, or is not of this form."""
        return None

    def held_factors(self) -> list[Tensor]:
        """Return the factors, each (R, D), whose rows the identity loss holds orthonormal."""
        return []

    def distance_from_identity(self) -> Tensor:
        """‖D − I‖, the Frobenius norm: with D = I + U·V its square is the sum over UᵀU ⊙ V·Vᵀ, so no D × D product is formed."""
        factors = self.factors()
        if factors is None:
            return torch.zeros(())
        down_RD, up_DR = (factor.float() for factor in factors)
        square: Tensor = ((up_DR.T @ up_DR) * (down_RD @ down_RD.T)).sum()
        return square.clamp(min=0).sqrt()


class IdentityOperator(Operator):
    """D = I: the mask alone. Used on tied embeddings, where any other D would untie them, and for `hio_rank=0`."""

    def forward(self, y: Tensor) -> Tensor:
        return y

    def fold(self, weight_DI: Tensor) -> Tensor:
        return weight_DI


class FactoredOperator(Operator):
    """A D = I + U·V of low rank, with the factors L0 = `down` (R, D), held orthonormal, and L1 = `up` (D, R)."""

    down: nn.Parameter
    up: nn.Parameter

    def gated(self, y: Tensor, gate_D: Tensor) -> Tensor:
        return gated(y, gate_D, *self.factors())

    @abstractmethod
    def factors(self) -> tuple[Tensor, Tensor]: ...

    def held_factors(self) -> list[Tensor]:
        return [self.down]


class LowRankOperator(FactoredOperator):
    """HIO, D = I + L1·diag(v)·L0 with 2·D·R + R parameters.

    Starts at D = I exactly and is free to leave it: L1 = 0, v = 1 and orthonormal L0, so that L1 has a gradient from the first step on,
    as LoRA's second factor has. The identity loss holds L0; L1 at zero can be orthogonal to nothing, and scales what L0 turns.
    """

    def __init__(self, hidden_size: int, rank: int) -> None:
        super().__init__()
        if not 0 < rank <= hidden_size:
            raise SettingError(f"hio_rank={rank}: must lie in 1..hidden_size={hidden_size}")
        self.down = nn.Parameter(nn.init.orthogonal_(torch.empty(rank, hidden_size)))
        self.scale = nn.Parameter(torch.ones(rank))
        self.up = nn.Parameter(torch.zeros(hidden_size, rank))

    def forward(self, y: Tensor) -> Tensor:
        """D·y with D = L1·diag(v)·L0 + I (docs/method.md, equation 10)."""
        low = functional.linear(y, self.down.to(y.dtype)) * self.scale.to(y.dtype)
        return y + functional.linear(low, self.up.to(y.dtype)).to(y.dtype)

    def fold(self, weight_DI: Tensor) -> Tensor:
        down_RD, scale_R, up_DR = (p.detach().to(weight_DI) for p in (self.down, self.scale, self.up))
        return torch.addmm(weight_DI, up_DR, scale_R[:, None] * (down_RD @ weight_DI))

    def factors(self) -> tuple[Tensor, Tensor]:
        return self.down, self.up * self.scale


class PinnedOperator(LowRankOperator):
    """The HIO with v = 0 and both factors orthonormal, both held by the identity loss: an ablation, for it hardly leaves D = I.

    Orthonormal factors are a kink of the loss's unsquared norm, whose gradient there is far above the data's.
    """

    def __init__(self, hidden_size: int, rank: int) -> None:
        super().__init__(hidden_size, rank)
        nn.init.zeros_(self.scale)
        nn.init.orthogonal_(self.up)

    def held_factors(self) -> list[Tensor]:
        return [self.down, self.up.T]


class ReleaseOperator(FactoredOperator):
    """The released code's form: D = I + L1·L0 with L1 = 0 and Kaiming-uniform L0 at the start; its scale is in the HSM."""

    def __init__(self, hidden_size: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Parameter(nn.init.kaiming_uniform_(torch.empty(rank, hidden_size), a=5**0.5))
        self.up = nn.Parameter(torch.zeros(hidden_size, rank))

    def forward(self, y: Tensor) -> Tensor:
        """D·y with D = L1·L0 + I (docs/method.md, equation 5)."""
        low = functional.linear(y, self.down.to(y.dtype))
        return y + functional.linear(low, self.up.to(y.dtype)).to(y.dtype)

    def fold(self, weight_DI: Tensor) -> Tensor:
        down_RD, up_DR = (p.detach().to(weight_DI) for p in (self.down, self.up))
        return torch.addmm(weight_DI, up_DR, down_RD @ weight_DI)

    def factors(self) -> tuple[Tensor, Tensor]:
        return self.down, self.up


class DenseOperator(Operator):
    """A free D, D × D parameters, starting at the identity: the ablation of figure 4."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.eye(hidden_size))

    def forward(self, y: Tensor) -> Tensor:
        return functional.linear(y, self.matrix.to(y.dtype)).to(y.dtype)

    def fold(self, weight_DI: Tensor) -> Tensor:
        return self.matrix.detach().to(weight_DI) @ weight_DI

    def distance_from_identity(self) -> Tensor:
        distance: Tensor = torch.linalg.matrix_norm(self.matrix.float() - torch.eye(len(self.matrix), device=self.matrix.device))
        return distance


def make_operator(hidden_size: int, config: PatConfig) -> Operator:
    """Return the operator D of one HSM, freshly initialised from torch's global generator."""
    rank = config.hio_rank
    if rank == 0:
        return IdentityOperator()
    if rank == "dense":
        return DenseOperator(hidden_size)
    if config.variant == "release":
        return ReleaseOperator(hidden_size, rank)
    return PinnedOperator(hidden_size, rank) if config.operators == "pinned" else LowRankOperator(hidden_size, rank)


class HybridSparsificationModule(nn.Module):
    """z = g ⊙ M ⊙ (D·y): the operator, the shared mask, and, in the release variant only, a learned scale g per output channel."""

    output_scale: nn.Parameter | None

    def __init__(self, operator: Operator, *, output_scale_size: int | None = None) -> None:
        super().__init__()
        self.operator = operator
        scale = None if output_scale_size is None else nn.Parameter(torch.ones(output_scale_size))
        self.register_parameter("output_scale", scale)

    def forward(self, y: Tensor, mask: UnifiedMask) -> Tensor:
        """Return z = M ⊙ (D·y) in y's shape (..., D) and dtype (docs/method.md, equation 4); channels whose mask is 0 come out exactly 0.

        In mixed precision the release's scale, which is fp32, makes an fp32 stream of it.
        """
        gate_D = mask()
        if self.output_scale is not None:
            gate_D = gate_D * self.output_scale.to(gate_D.dtype)
        if self.output_scale is None or not torch.is_autocast_enabled(y.device.type):
            gate_D = gate_D.to(y.dtype)
        return self.operator.gated(y, gate_D)

    def fold(self, weight_DI: Tensor, mask_D: Tensor) -> Tensor:
        """(g ⊙ M ⊙ D)·W for a weight, or for a bias given as a column; W's dtype."""
        gate_D = mask_D.to(weight_DI)
        if self.output_scale is not None:
            gate_D = gate_D * self.output_scale.detach().to(weight_DI)
        return gate_D[:, None] * self.operator.fold(weight_DI)
