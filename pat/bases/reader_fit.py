"""The least-squares map of one norm: exact on the massive tokens, least squares on the others.

A few tokens of a pretrained model, its attention sinks, are many times larger than all others and lie nearly in one direction. Every
token attends to them, so what is read of them has to stay what it was: a fit that treats them as any other token, or a ridge that draws
at them, bends it. So they are a constraint: in the few directions in which they lie B is what they demand, and the fit of all tokens, of
theirs too, has the complement. Directions in which they hardly lie are left to the fit: what they demand there is the ratio of two small
numbers, and every other token would be read by it.
Axes: D channels, K kept channels, N tokens that count, R directions in which the massive tokens lie.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

RIDGE = 1e-6
"""Of each channel's own second moment, so that no gain changes what it does. It is for text too short, or of too few words, to fix B."""
RIDGES = (RIDGE, 1e-3)
"""Of which the perplexity of held-out text chooses one for the whole model. A norm's own held-out error would choose stronger ones, and is
no guide: on SmolLM2-135M they lower it at most norms and triple the perplexity."""
SMALLEST_MASSIVE = 1e-3
"""Share of the massive tokens' largest moment below which a direction is none of theirs. Behind narrowed layers it is their drift."""
MOST_MASSIVE = 1 / 8
"""Of the kept channels: what the massive tokens may take of the freedom to fit the others."""


@dataclass(frozen=True)
class Fit:
    """The map B of one norm, (D, K) in fp64, and how well it does: shares of E‖n‖² that plain reading and B leave unexplained.

    `error` and `error_plain` are those of the tokens it was fitted to, `massive` and `massive_plain` those of the massive ones, None where
    there are none, `held_out` and `held_out_plain` those of text that it was not fitted to.
    """

    map_DK: Tensor
    error_plain: float
    error: float
    massive_tokens: int = 0
    massive_plain: float | None = None
    massive: float | None = None
    held_out_plain: float | None = None
    held_out: float | None = None


@dataclass
class Moments:
    """Sums over tokens, in fp64: n·n_keptᵀ, n_kept·n_keptᵀ and ‖n‖², and how many tokens they are."""

    cross_DK: Tensor
    kept_KK: Tensor
    size: Tensor
    tokens: int = 0

    @classmethod
    def none(cls, channels: int, kept: int, device: torch.device) -> Moments:
        """Return the moments of no token."""
        cross_DK, kept_KK, size = (torch.zeros(shape, dtype=torch.float64, device=device) for shape in ((channels, kept), (kept, kept), ()))
        return cls(cross_DK, kept_KK, size)

    def add(self, n_ND: Tensor, kept_NK: Tensor) -> None:
        """Add tokens: what the norm passes on of the whole stream and of the kept channels of the pruned one, fp64."""
        self.cross_DK.addmm_(n_ND.T, kept_NK)
        self.kept_KK.addmm_(kept_NK.T, kept_NK)
        self.size.add_(n_ND.square().sum())
        self.tokens += len(n_ND)

    def with_(self, other: Moments) -> Moments:
        """Return the moments of the tokens of both."""
        return Moments(self.cross_DK + other.cross_DK, self.kept_KK + other.kept_KK, self.size + other.size, self.tokens + other.tokens)

    def error(self, map_DK: Tensor) -> float:
        """Return E‖n − B·n_kept‖² / E‖n‖²."""
        left = self.size - 2 * (map_DK * self.cross_DK).sum() + ((map_DK @ self.kept_KK) * map_DK).sum()
        return (left / self.size).clamp(min=0).item()


def selection(index_K: Tensor, channels: int) -> Tensor:
    """Return S, (D, K) in fp64: the map that reads the kept channels as they are and the dead ones as zero."""
    return torch.eye(channels, dtype=torch.float64, device=index_K.device)[:, index_K]


def fitted(ordinary: Moments, massive: Moments, held_out: Moments, index_K: Tensor, ridge: float = RIDGE) -> Fit:
    """Return the fit to all tokens that is exact where the massive ones lie; `index_K` says which channels of n are the kept ones."""
    plain_DK = selection(index_K, len(ordinary.cross_DK))
    map_DK = map_of_reader(ordinary.with_(massive), massive, index_K, ridge)

    def errors(of: Moments) -> tuple[float | None, float | None]:
        return (of.error(plain_DK), of.error(map_DK)) if of.tokens else (None, None)

    return Fit(map_DK.cpu(), ordinary.error(plain_DK), ordinary.error(map_DK), massive.tokens, *errors(massive), *errors(held_out))


def map_of_reader(tokens: Moments, massive: Moments, index_K: Tensor, ridge: float = RIDGE) -> Tensor:
    """Return the B (D, K) that minimises Σ‖n − B·n_kept‖² + ‖(B − S)·λ^½‖² over tokens, B·n_kept = n where massive ones lie.

    λ is `ridge` times the diagonal of Σ n_kept·n_keptᵀ; it draws to plain reading S and not to zero: B is exactly I where nothing is
    dropped. With U the directions of the massive tokens, B − S is what they demand on U, and solves the rest on U's complement.
    """
    plain_DK = selection(index_K, len(tokens.cross_DK))
    missing_DK, ridge_K = tokens.cross_DK - plain_DK @ tokens.kept_KK, _ridge(tokens.kept_KK, ridge)
    if not massive.tokens:
        change_KD: Tensor = torch.linalg.solve(tokens.kept_KK + torch.diag(ridge_K), missing_DK.T)
        return plain_DK + change_KD.T
    directions_KR, sizes_R, free_KF = _massive_directions(massive.kept_KK)
    demanded_DR = (massive.cross_DK - plain_DK @ massive.kept_KK) @ directions_KR / sizes_R
    demanded_DK = demanded_DR @ directions_KR.T
    left_DF = (missing_DK - demanded_DK @ tokens.kept_KK) @ free_KF
    regular_FF = free_KF.T @ (tokens.kept_KK + torch.diag(ridge_K)) @ free_KF
    map_DK: Tensor = plain_DK + demanded_DK + torch.linalg.solve(regular_FF, left_DF.T).T @ free_KF.T
    return map_DK


def _ridge(kept_KK: Tensor, ridge: float) -> Tensor:
    squares_K = kept_KK.diagonal()
    ridge_K: Tensor = ridge * squares_K.clamp(min=RIDGE * squares_K.mean().item())  # a channel may be silent on the text
    return ridge_K


def _massive_directions(kept_KK: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the directions in which the massive tokens lie, their moments there, and the complement."""
    values_K, vectors_KK = torch.linalg.eigh(kept_KK)
    real = int((values_K > SMALLEST_MASSIVE * values_K[-1]).sum())
    count = min(real, max(1, int(MOST_MASSIVE * len(values_K))))
    return vectors_KK[:, -count:], values_K[-count:], vectors_KK[:, :-count]
