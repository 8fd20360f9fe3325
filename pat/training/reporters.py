"""Where a tuning's numbers go while it runs, beside its log: trackers that the Trainer knows by name. None unless the settings ask.

Owns which packages they need, what a run is called, and TensorBoard's files. The runs of trackers that keep runs are tracker_runs.py's.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable, Collection
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pat.errors import UserError
from pat.machine import processes

if TYPE_CHECKING:
    from transformers import Trainer

    from pat.training.request import TuningRequest

PACKAGES = {"tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",), "mlflow": ("mlflow",)}
"""By the Trainer's names, the packages of which one has to be there, the usual one first."""
SAYS_NOTHING = ("results", "checkpoints", "run")
"""Folders whose names are the same for every run of an experiment."""
TENSORBOARD_FOLDER = "runs"


def missing_reporters(names: Collection[str]) -> list[str]:
    """Return for each tracker that cannot be used here, what is to be installed for it."""
    return [PACKAGES[name][0] for name in names if not any(_is_installed(package) for package in PACKAGES[name])]


def _is_installed(package: str) -> bool:
    """Return whether a package is there; a mere folder of its name, as `wandb` leaves one where it ran, is none."""
    found = find_spec(package)
    return found is not None and found.origin is not None


def check_reporters(names: Collection[str]) -> None:
    """Raise UserError where a tracker's package is not installed: the Trainer would find out after the model is loaded."""
    if missing := missing_reporters(names):
        raise UserError(f"tuning.report_to: needs {' and '.join(missing)}: pip install {' '.join(missing)}, or leave the name out")


def run_name(run_dir: Path) -> str:
    """Return what a tuning is called in trackers: its run folder's path from here, without what every run has in it."""
    parts = Path(os.path.relpath(run_dir)).parts
    return "/".join(part for part in parts if part not in (os.pardir, *SAYS_NOTHING)) or run_dir.name


def run_facts(request: TuningRequest) -> dict[str, object]:
    """Return what trackers are told that a run was asked for, beside the Trainer's arguments and the model's config."""
    from pat import __version__

    places = {name: str(path) for name, path in (("base", request.base), ("data", request.data), ("run_dir", request.run_dir))}
    return {"pat_version": __version__, "seed": request.seed, **places, **request.settings}


def put_reporters_last(trainer: Trainer, request: TuningRequest, steps_done: int = 0) -> None:
    """Let a trainer's trackers be called after its other callbacks, so that they are told what those add to the log.

    `steps_done` is the step that it goes on from: what TensorBoard was told of later ones is told again.
    """
    from transformers.integrations.integration_utils import TensorBoardCallback, get_reporting_integration_callbacks

    for kind in get_reporting_integration_callbacks(trainer.args.report_to):
        if (tracker := trainer.pop_callback(kind)) is not None:
            ours = kind is TensorBoardCallback and processes.is_main()
            trainer.add_callback(TensorBoardCallback(_tensorboard_writer(request, steps_done)) if ours else tracker)


def _tensorboard_writer(request: TuningRequest, steps_done: int) -> object:
    """Return a writer into one folder a run, whichever start of the job writes: the Trainer's own has the time of its start in its name."""
    shared = os.environ.get("TENSORBOARD_LOGGING_DIR")
    folder = Path(shared).expanduser() / run_name(request.run_dir) if shared else request.run_dir / TENSORBOARD_FOLDER
    writer = _writer_class()(log_dir=str(folder), purge_step=steps_done + 1)
    writer.add_text("settings", "    " + json.dumps(run_facts(request), indent=2).replace("\n", "\n    "))  # Markdown: a block of code
    return writer


def _writer_class() -> Callable[..., Any]:
    """Return the writer of the package that is there, as the Trainer chooses it."""
    try:
        return importlib.import_module("torch.utils.tensorboard").SummaryWriter  # type: ignore[no-any-return]
    except ImportError:
        return importlib.import_module("tensorboardX").SummaryWriter  # type: ignore[no-any-return]
