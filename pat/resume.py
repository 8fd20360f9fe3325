"""Trainer checkpoints that survive a kill: sealed with checksums once complete, and only sealed ones are resumed from."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pat import artefacts
from pat.errors import UserError

logger = logging.getLogger(__name__)


class SealCheckpoints(TrainerCallback):
    """Writes a manifest into every checkpoint after the trainer has finished writing it."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            assert args.output_dir is not None
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            artefacts.write_json(folder / artefacts.MANIFEST, artefacts.manifest(folder))


def latest_complete(run_dir: Path) -> Path | None:
    """Return the newest checkpoint below `run_dir` whose seal holds, None where there is none; broken ones are passed over."""
    for folder in sorted(run_dir.glob("checkpoint-*"), key=_step, reverse=True):
        try:
            artefacts.check_folder(folder)
        except UserError as error:
            logger.warning("checkpoint passed over: %s", error)
            continue
        return folder
    return None


def _step(folder: Path) -> int:
    _, _, digits = folder.name.rpartition("-")
    return int(digits) if digits.isdigit() else -1
