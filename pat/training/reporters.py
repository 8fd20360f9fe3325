"""Where a tuning's numbers go while it runs, beside its log: trackers that the Trainer knows by name. None unless the settings ask.

Owns which packages they need. What a tracker is told and where it keeps it is the Trainer's and the tracker's own.
"""

from __future__ import annotations

from collections.abc import Collection
from importlib.util import find_spec
from typing import TYPE_CHECKING

from pat.errors import UserError

if TYPE_CHECKING:
    from transformers import Trainer

PACKAGES = {"tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",), "mlflow": ("mlflow",)}
"""By the Trainer's names, the packages of which one has to be there, the usual one first."""


def missing_reporters(names: Collection[str]) -> list[str]:
    """Return for each tracker that cannot be used here, what is to be installed for it."""
    return [PACKAGES[name][0] for name in names if not any(find_spec(package) for package in PACKAGES[name])]


def check_reporters(names: Collection[str]) -> None:
    """Raise UserError where a tracker's package is not installed: the Trainer would find out after the model is loaded."""
    if missing := missing_reporters(names):
        raise UserError(f"tuning.report_to: needs {' and '.join(missing)}: pip install {' '.join(missing)}, or leave the name out")


def put_reporters_last(trainer: Trainer) -> None:
    """Let a trainer's trackers be called after its other callbacks, so that they are told what those add to the log."""
    from transformers.integrations.integration_utils import get_reporting_integration_callbacks

    for kind in get_reporting_integration_callbacks(trainer.args.report_to):
        if (tracker := trainer.pop_callback(kind)) is not None:
            trainer.add_callback(tracker)
