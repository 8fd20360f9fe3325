"""A budget given by hand in place of a ratio, solved on the checkpoint that it is for: before any work, and told."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from pat.checkpoints import checkpoint
from pat.checkpoints.base_checks import check_base
from pat.errors import UserError
from pat.families.known import family_of, head_size
from pat.io.progress import say
from pat.models.budget import Fit, Within, width_fit
from pat.models.on_paper import Align, PaperModel
from pat.models.reshaped import ReshapedConfig
from pat.pruners.registry import PRUNERS
from pat.settings.budget import Budget
from pat.settings.jobs import PruneSettings
from pat.settings.mistakes import wanted

OPTIONS = "--ratio, --budget-parameters and --budget-memory-gib"


def given_ratio(ratio: float | None, parameters: float | None, memory_gib: float | None) -> float | Budget | None:
    """Return the ratio or the budget that options name; None where they name neither. Raises UserError where they name two."""
    if sum(each is not None for each in (ratio, parameters, memory_gib)) > 1:
        raise UserError(f"give one of {OPTIONS}")
    if parameters is None and memory_gib is None:
        return ratio
    try:
        return Budget(parameters=parameters, memory_gib=memory_gib)
    except ValidationError as error:
        option = "--budget-parameters" if parameters is not None else "--budget-memory-gib"
        raise UserError(f"{option} {parameters if memory_gib is None else memory_gib}: {wanted(error.errors()[0]['msg'])}") from None


def width_ratio(base: Path, asked: float | Budget | None, align: Align, *, untied: bool = False) -> float | None:
    """Return the share of the hidden size that is asked for, or that a budget comes to; `untied` as for `parameters_at`."""
    if not isinstance(asked, Budget):
        return asked
    return _ratio_within(base, asked, width_fit, PruneSettings(tie="break" if untied else "keep"), align)


def prune_ratio(base: Path, pruner: str, asked: float | Budget | None, settings: PruneSettings, align: Align) -> float:
    """Return the ratio that a pruner is asked for, or at which it keeps within a budget. Raises UserError where it is not known."""
    if asked is None:
        raise UserError(f"--pruner {pruner}: one of {OPTIONS} is needed")
    if not isinstance(asked, Budget):
        return asked
    if pruner not in PRUNERS:
        raise UserError(f"--pruner {pruner!r}: must be one of {', '.join(sorted(PRUNERS))}")
    return _ratio_within(base, asked, PRUNERS[pruner].fit, settings, align)


def counted(base: Path) -> tuple[PaperModel, int]:
    """Return what a checkpoint's tensors tell of its sizes, and the bytes of a parameter. Raises UserError where it is no stock model."""
    check_base(base)
    config = checkpoint.load_config(base)
    if isinstance(config, ReshapedConfig):
        raise UserError(f"{base}: is reshaped already; a budget is solved for stock models")
    model = PaperModel(
        family_of(config), config.vocab_size, config.hidden_size, config.num_hidden_layers, config.num_attention_heads,
        config.num_key_value_heads, config.intermediate_size, head_size(config), bool(config.tie_word_embeddings),
    )  # fmt: skip
    return model.with_tensors(checkpoint.tensor_shapes(base)), checkpoint.dtype_of(base).itemsize


def _ratio_within(base: Path, budget: Budget, within: Within, settings: PruneSettings, align: Align) -> float:
    """Return the ratio at which a checkpoint keeps within a budget, and say what it comes to. Raises SettingError where none does."""
    model, bytes_each = counted(base)
    fit: Fit = within(model, budget.allowed(model.parameters, bytes_each), settings, align)
    say(f"budget {budget}: ratio {fit.ratio:g}, {fit.size}: {fit.parameters:,} of {model.parameters:,} parameters stay at most")
    return fit.ratio
