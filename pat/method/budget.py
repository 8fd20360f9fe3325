"""A run's budget in place of its ratio, solved on the model that is to be pruned while it is tuned."""

from __future__ import annotations

from transformers import PreTrainedModel

from pat.models.budget import ratio_within, width_fit
from pat.models.on_paper import PaperModel
from pat.settings.budget import Budget
from pat.settings.config import PatConfig
from pat.settings.jobs import PruneSettings


def within_budget(config: PatConfig, model: PreTrainedModel) -> PatConfig:
    """Return the config with the ratio that its budget comes to in `model`, memory counted in the model's dtype; as it is without one.

    Raises SettingError where no width keeps within the budget.
    """
    if not isinstance(config.pruning_ratio, Budget):
        return config
    sizes = PaperModel.of_config(model.config, {name: tuple(parameter.shape) for name, parameter in model.named_parameters()})
    ratio = ratio_within(sizes, model.dtype.itemsize, config.pruning_ratio, width_fit, PruneSettings(), config.align)
    return config.changed(pruning_ratio=ratio)
