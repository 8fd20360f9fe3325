"""Bases of the residual stream, found on calibration text: which directions matter, the most important first.

Owns the directions. The statistics are second_moment.py's, putting a model into a basis is rotation.py's. Axes: D channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Basis:
    """Orthonormal directions as columns and how much each matters, descending; both fp64."""

    directions_DD: Tensor
    importance_D: Tensor

    def captured(self, width: int) -> float:
        """Return the leading `width` directions' share of the whole importance."""
        return (self.importance_D[:width].sum() / self.importance_D.sum()).item()


def principal(moment_DD: Tensor) -> Basis:
    """Return the eigenvectors of a symmetric matrix by descending eigenvalue, each with its largest entry positive."""
    values_D, vectors_DD = torch.linalg.eigh(moment_DD)
    values_D, vectors_DD = values_D.flip(0).clamp(min=0), vectors_DD.flip(1)
    return Basis(signed(vectors_DD), values_D)


def signed(directions_DD: Tensor) -> Tensor:
    """Return the columns with their largest entry positive: a direction's sign is arbitrary, and equal inputs shall give equal bytes."""
    largest_1D = directions_DD.gather(0, directions_DD.abs().argmax(0, keepdim=True))
    return (directions_DD * largest_1D.sign()).contiguous()
