"""A change of basis of a model whose embedding is its head too, after which it still is: scaled first, then rotated, a few channels apart.

The rotated model is stock and computes what the base computes but for the norms' denominators; tied_scaling.py says why, and how far off
they are. Axes: D channels, A channels apart, R rotated channels, O outputs, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from pat.bases.directions import Basis
from pat.bases.tied_scaling import Scaling
from pat.checkpoints import checkpoint
from pat.checkpoints.merge import write_changed
from pat.checkpoints.unrounded import Written
from pat.families.known import Family, Role, family_of


def basis_with_channels_apart(find: Callable[..., Basis], moments: Sequence[Tensor], scaling: Scaling) -> Basis:
    """Return the basis of the scaled stream: the channels apart, one per direction, then what `find` makes of the others' moments.

    `moments` are those of the stream as it is, of activations and, where `find` takes them, of gradients. The importance of a channel
    apart is its own moment, or the product of both.
    """
    scale_D, rotated = scaling.squares_D.sqrt(), scaling.rotated
    scaled = [
        moment_DD.cpu() * torch.outer(factor_D, factor_D) for moment_DD, factor_D in zip(moments, (scale_D, 1 / scale_D), strict=False)
    ]
    found = find(*(moment_DD[rotated][:, rotated] for moment_DD in scaled))
    apart_A = torch.stack([moment_DD.diagonal()[scaling.apart] for moment_DD in scaled]).prod(0)
    directions_DD = torch.zeros(len(scale_D), len(scale_D), dtype=torch.float64)
    directions_DD[scaling.apart, torch.arange(len(scaling.apart))] = 1
    directions_DD[rotated, len(scaling.apart) :] = found.directions_DD
    return Basis(directions_DD, torch.cat([apart_A, found.importance_D]))


class TiedRotation:
    """Maps each tensor of a base checkpoint to the rotated model's, in fp64 on the basis' device, cast and brought back at the end.

    `basis_DD` (fp64) holds a direction of the scaled stream in each column, the channels apart in front. `gains_D` are the norms'
    effective gains by the norm's name. Embedding and head stay one matrix.
    """

    def __init__(self, family: Family, basis_DD: Tensor, gains_D: Mapping[str, Tensor], scaling: Scaling) -> None:
        self.family = family
        self.basis_DD = basis_DD
        self.gains_D = gains_D
        self.scaling = scaling
        self.scale_D = scaling.squares_D.sqrt().to(basis_DD)

    def __call__(self, name: str, tensor: Tensor) -> Tensor:
        """Return the rotated tensor. Raises UserError on a name the family does not have."""
        module, _, _ = name.rpartition(".")
        wide = tensor.to(self.basis_DD)
        match self.family.role(name):
            case Role.EMBEDDING:
                wide = (wide * self.scale_D) @ self.basis_DD
            case Role.WRITE:
                wide = (self.scale_D[:, None] * self.basis_DD).T @ wide
            case Role.READ if wide.dim() == 2:
                norm = self.family.site_of(module)
                factors_D = self.gains_D[norm].to(wide) * self.scaling.corrections[norm] / self.scale_D
                wide = (wide * factors_D) @ self.basis_DD
            case Role.NORM:
                wide = torch.full_like(wide, 1.0 - self.family.gain_offset)
            case Role.FINAL_NORM:
                wide = self._final_gain().to(wide) - self.family.gain_offset
        return wide.to(tensor).contiguous()

    def _final_gain(self) -> Tensor:
        """Return the final norm's gain in the new basis: each channel's own in front, the constant behind."""
        apart, rotated = self.scaling.apart, self.scaling.rotated
        return torch.cat([self.scaling.gain_D[apart], self.scaling.gain_D[rotated]])


def write_tied_rotated(source: Path, folder: Path, basis_DD: Tensor, scaling: Scaling) -> Written:
    """Write `source`, whose embedding is its head, in another basis into `folder`: a stock checkpoint of the same shape."""
    config = checkpoint.load_config(source)
    family = family_of(config)
    rotation = TiedRotation(family, basis_DD, checkpoint.norm_gains(source, family), scaling)

    def change(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
        yield name, rotation(name, tensor)

    return write_changed(source, folder, change, config, "rotate")
