"""An exact change of basis of a frozen model: norms folded away, then one orthogonal matrix for the whole residual stream.

The rotated model is stock and computes what the base computes. Which basis is bases.py's question; cutting directions is fold.py's.
Axes: D channels, O outputs, V vocabulary.

Why it is exact. A norm without gain divides by the root of a mean of squares, which no orthogonal Q changes: norm(x Q) = norm(x) Q. So
whatever is written to the stream is multiplied by Q, whatever reads it by Qᵀ, and gains, which do not commute with Q, go into the
readers first. The mean over the channels is no part of an RMS norm, so nothing is centred. A factor on the embedding commutes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from pat.checkpoints import checkpoint
from pat.checkpoints.merge import write_changed
from pat.checkpoints.unrounded import Written
from pat.families.known import Family, Role, family_of


class Rotation:
    """Maps each tensor of a base checkpoint to the rotated model's, in fp64 on the basis' device, cast and brought back at the end.

    `basis_DD` (fp64) holds a direction of the stream in each column. `gains_D` are the norms' effective gains by the norm's name.
    Where embedding and head are one matrix they become two, because only the head takes up the final norm's gain.
    """

    def __init__(self, family: Family, basis_DD: Tensor, gains_D: Mapping[str, Tensor], *, tied: bool) -> None:
        self.family = family
        self.basis_DD = basis_DD
        self.gains_D = gains_D
        self.tied = tied

    def __call__(self, name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield the rotated tensor, and after a tied embedding the head. Raises UserError on a name the family does not have."""
        yield name, self._rotated(name, tensor)
        if self.tied and self.family.role(name) is Role.EMBEDDING:
            head = f"{self.family.head}.weight"
            yield head, self._rotated(head, tensor)

    def _rotated(self, name: str, tensor: Tensor) -> Tensor:
        module, _, _ = name.rpartition(".")
        wide = tensor.to(self.basis_DD)
        match self.family.role(name):
            case Role.EMBEDDING:
                wide = wide @ self.basis_DD
            case Role.WRITE:
                wide = self.basis_DD.T @ wide
            case Role.READ | Role.HEAD if wide.dim() == 2:
                wide = (wide * self.gains_D[self.family.site_of(module)].to(wide)) @ self.basis_DD
            case Role.NORM | Role.FINAL_NORM:
                wide = torch.full_like(wide, 1.0 - self.family.gain_offset)
        return wide.to(tensor).contiguous()


def write_rotated(source: Path, folder: Path, basis_DD: Tensor) -> Written:
    """Write `source` in another basis into `folder`: a stock checkpoint of the same width, embedding and head apart."""
    config = checkpoint.load_config(source)
    family = family_of(config)
    rotation = Rotation(family, basis_DD, checkpoint.norm_gains(source, family), tied=bool(config.tie_word_embeddings))
    untied = type(config).from_dict(config.to_dict() | {"tie_word_embeddings": False})
    return write_changed(source, folder, rotation, untied, "rotate")
