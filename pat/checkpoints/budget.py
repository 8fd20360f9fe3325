"""A budget solved on the checkpoint that it is for: what a width comes to, before any work, and told. Of pruners it knows nothing."""

from __future__ import annotations

from pathlib import Path

from pat.checkpoints import checkpoint
from pat.checkpoints.base_checks import check_base
from pat.checkpoints.readers_record import kept_channels, refitted_ratio
from pat.errors import UserError
from pat.models.budget import width_ratio_within
from pat.models.on_paper import Align, PaperModel
from pat.models.reshaped import ReshapedConfig
from pat.settings.budget import Budget


def counted(base: Path) -> tuple[PaperModel, int]:
    """Return what a checkpoint's tensors tell of its sizes, and the bytes of a parameter. Raises UserError where it is no stock model."""
    check_base(base)
    config = checkpoint.load_config(base)
    if isinstance(config, ReshapedConfig):
        raise UserError(f"{base}: is reshaped already; a budget is solved for stock models")
    return PaperModel.of_config(config, checkpoint.tensor_shapes(base)), checkpoint.dtype_of(base).itemsize


def width_ratio(base: Path, asked: float | Budget, align: Align, *, untied: bool = False) -> float:
    """Return the share of the hidden size that is asked for, or that a budget comes to; `untied` as for `parameters_at`.

    Of a base whose readers are refitted it is the share that they are refitted for, where that keeps within the budget.
    """
    if not isinstance(asked, Budget):
        return asked
    ratio, refitted = width_ratio_within(*counted(base), asked, align, kept_channels(base), untied=untied), refitted_ratio(base)
    return ratio if refitted is None else refitted
