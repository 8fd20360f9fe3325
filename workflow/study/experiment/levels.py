"""What a budget comes to on one model: the level it stands at in tables, and the size that a method cuts it to. Knows no experiment.

A budget's level is the share of the model's parameters that goes, so that all rows of a model stand on one line. What a row's commands are
asked for, a share of its hidden size, say, is solved for each row by what its method cuts.
"""

from __future__ import annotations

import math
from pathlib import Path

from pat.errors import SettingError, UserError
from pat.models.budget import Fit, width_fit
from pat.models.on_paper import Align, PaperModel
from pat.pruners import PRUNERS
from pat.settings.budget import Budget
from pat.settings.fields import BYTES
from pat.settings.jobs import PruneSettings
from study.experiment.footprint import shape_of
from study.sources.kinds import HubModel, ModelSource

LEVEL_DIGITS = 4
"""A level names folders and lines of tables."""
GGUF_BYTES = {"bf16": BYTES["bf16"], "fp16": 2, "fp32": BYTES["fp32"]}
"""Of a parameter of a base made from a GGUF file, by its `dtype`."""
PRETRAINED_BYTES = BYTES["fp32"]
"""Of a parameter of what `pat pretrain` writes."""


def level_of(sizes: PaperModel, bytes_each: float, budget: Budget) -> float:
    """Return the share of a model's parameters that goes with a budget, rounded up. Raises SettingError where nothing would be left."""
    allowed, unit = budget.allowed(sizes.parameters, bytes_each), 10**LEVEL_DIGITS
    level: float = math.floor((1 - (allowed + 1) / sizes.parameters) * unit) / unit
    while _left_at(sizes, level) > allowed:
        level = round(level + 1 / unit, LEVEL_DIGITS)
    if level >= 1:
        raise SettingError(f"budget {budget}: leaves nothing of {sizes.parameters:,} parameters; allow more")
    return level


def fit_at(sizes: PaperModel, level: float, pruner: str | None, settings: PruneSettings, align: Align) -> Fit:
    """Return what a level comes to by a pruner; None: the hidden size is cut while tuning. Raises SettingError where that cannot be."""
    allowed = _left_at(sizes, level)
    if pruner is None:
        return width_fit(sizes, allowed, settings, align)
    fit = PRUNERS[pruner].fit(sizes, allowed, settings, align)
    is_share = abs(fit.ratio - level) < 2e-6
    return Fit(level, fit.size, fit.parameters) if is_share else fit


def _left_at(sizes: PaperModel, level: float) -> int:
    """Return how many parameters stay at a level at most."""
    return math.floor(sizes.parameters * (1 - level) + 1e-6)


def sizes_of(source: ModelSource, place: str, root: Path) -> tuple[PaperModel, float]:
    """Return a model's sizes and the bytes of a parameter. Raises SettingError where they are not known before it is fetched.

    `place` is where the source stands in the file, `root` what its path starts from.
    """
    if source.pretrain is not None:
        return PaperModel.of(source.pretrain), PRETRAINED_BYTES
    if source.gguf is not None:
        return _sizes_in_gguf(root / source.gguf), GGUF_BYTES[source.gguf_dtype]
    folder = root / source.path if source.path is not None else in_cache(source.hub)
    if folder is None:
        raise SettingError(
            f"{place}.hub: its sizes are not known before it is in the hub's cache, so no budget can be solved; give ratios, or fetch it "
            "first: hf download"
        )
    from pat.checkpoints.budget import counted

    try:
        return counted(folder)
    except UserError as error:
        raise SettingError(f"{place}.{'path' if source.path is not None else 'hub'}: {error}") from None


def in_cache(model: HubModel | None) -> Path | None:
    """Return where a model of the hub lies in its libraries' cache; None where it does not."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(model.id, "config.json", revision=model.revision) if model is not None else None
    return Path(found).parent if isinstance(found, str) else None


def _sizes_in_gguf(file: Path) -> PaperModel:
    from pat.checkpoints.gguf_import import checked_fields

    try:
        fields = checked_fields(file)
    except UserError as error:
        raise SettingError(str(error)) from None
    return PaperModel.of(shape_of(fields))
