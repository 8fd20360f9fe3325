"""Trainer checkpoints that survive a kill: sealed with their job and checksums once complete, and only such are resumed from."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate import PartialState
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pat.errors import UserError
from pat.io import artefacts
from pat.io.provenance import checksums
from pat.io.resume_folder import JOB_NAME, enter, job_in
from pat.training.spent import Spent

if TYPE_CHECKING:
    from pat.training.request import TuningRequest

TRAINER_STATE = "trainer_state.json"
"""The Trainer's own account of where it stands, in each of its checkpoints."""
logger = logging.getLogger(__name__)


class SealCheckpoints(TrainerCallback):
    """Writes the job, what was spent and a manifest into every checkpoint, once all of the trainer's processes have written theirs.

    The last step has none: what the training ends in is written at once, and a Trainer that resumes from there takes a step too many.
    """

    def __init__(self, job: Mapping[str, object], spent: Spent) -> None:
        self.job, self.spent = job, spent

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step >= state.max_steps:
            control.should_save = False

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        PartialState().wait_for_everyone()
        if state.is_world_process_zero:
            assert args.output_dir is not None
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            artefacts.write_json(folder / JOB_NAME, self.job)
            self.spent.write(folder)
            artefacts.seal(folder)


def reason_not_to(request: TuningRequest) -> str | None:
    """Return why the Trainer cannot plan a tuning's checkpoints itself, so that `AskForCheckpoints` does; None where it can."""
    return "it could not save the state of an optimizer of shards" if request.sharded else None


def checkpoint_of(run_dir: Path, job: Mapping[str, object]) -> Path | None:
    """Return the newest whole checkpoint that exactly this job has left in `run_dir`; those of another job are put aside.

    `job` tells jobs apart: settings and checksums of inputs. Without it, a job whose settings were changed after a kill would go on
    from weights that the old settings made.
    """
    enter(run_dir, job)
    return latest_complete(run_dir, job)


def job_identity(request: TuningRequest) -> dict[str, object]:
    """Return what a checkpoint of the job must agree with to be resumed from."""
    return {
        "settings": request.job.model_dump(mode="json"),
        "tuner": request.tuner,
        "ratio": request.ratio,
        "seed": request.seed,
        "base": identity_of(request.base),
        "data": checksums(request.data),
        **({"columns": dict(request.columns)} if request.columns else {}),
        **({"teacher": identity_of(request.teacher)} if request.teacher else {}),
    }


def identity_of(base: Path) -> object:
    """Return what tells a base model from another one in its place.

    That is its manifest's checksum, or, of a folder that was made elsewhere and has none, names, sizes and times of change of its files,
    and the checksums of its weights.
    """
    listed = base / artefacts.MANIFEST
    if listed.exists():
        return artefacts.sha256(listed)
    facts = {path.name: path.stat() for path in sorted(base.iterdir()) if path.is_file()}
    return {"files": {name: [found.st_size, found.st_mtime_ns] for name, found in facts.items()}, "weights": checksums(base)}


def latest_complete(run_dir: Path, job: Mapping[str, object] | None = None) -> Path | None:
    """Return the newest checkpoint below `run_dir` whose seal holds, and which is this job's where one is given; others are passed over."""
    for folder in sorted(run_dir.glob("checkpoint-*"), key=step_of, reverse=True):
        try:
            artefacts.check_folder(folder)
        except UserError as error:
            logger.warning("checkpoint passed over: %s", error)
            continue
        if job is not None and job_in(folder) != job:
            logger.warning("checkpoint passed over: %s: was made with other settings or inputs", folder)
            continue
        if is_of_last_step(folder):
            logger.warning("checkpoint passed over: %s: is of the last step, from which the Trainer would take one more", folder)
            continue
        return folder
    return None


def is_of_last_step(folder: Path) -> bool:
    """Return whether a whole checkpoint was left by a training's last step, as earlier versions of `SealCheckpoints` did."""
    state: TrainerState = TrainerState.load_from_json(str(folder / TRAINER_STATE))
    return state.global_step >= state.max_steps


def step_of(folder: Path) -> int:
    """Return the step that a checkpoint's folder is named after, -1 for another name."""
    _, _, digits = folder.name.rpartition("-")
    return int(digits) if digits.isdigit() else -1
