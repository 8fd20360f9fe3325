"""A run's budget in place of its ratio, solved on the model that is to be pruned while it is tuned."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedModel

from pat.models.budget import width_ratio_within
from pat.models.on_paper import PaperModel
from pat.settings.budget import Budget
from pat.settings.config import PatConfig


def within_budget(config: PatConfig, model: PreTrainedModel, kept: Sequence[int] | None = None) -> PatConfig:
    """Return the config with the ratio that its budget comes to in `model`, memory counted in the model's dtype; as it is without one.

    `kept` are the channels that the model's readers are refitted to, which settle the width. Raises SettingError where no width keeps
    within the budget, or that one does not.
    """
    if not isinstance(config.pruning_ratio, Budget):
        return config
    sizes = PaperModel.of_config(model.config, {name: tuple(parameter.shape) for name, parameter in model.named_parameters()})
    return config.changed(pruning_ratio=width_ratio_within(sizes, model.dtype.itemsize, config.pruning_ratio, config.align, kept))
