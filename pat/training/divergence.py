"""A training that has diverged: stopped at its next log line, and refused before anything is made of its weights."""

from __future__ import annotations

import logging
import math
from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pat.errors import UserError

logger = logging.getLogger(__name__)


class StopWhenDiverged(TrainerCallback):
    """Ends a training whose gradients are not finite: its weights are lost, and no further step mends them."""

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, float] | None = None, **kwargs: Any
    ) -> None:
        if not math.isfinite((logs or {}).get("grad_norm", 0.0)):
            logger.warning("step %d: the gradients are not finite; the training ends here", state.global_step)
            control.should_training_stop = True


def check_finite(model: nn.Module, steps: int, field: str) -> None:
    """Raise UserError where a trained weight is not finite; `field` names the setting to lower."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not bool(parameter.isfinite().all()):
            raise UserError(f"the training diverged: by step {steps}, {name} is not finite; lower {field}, or warm up for longer")
