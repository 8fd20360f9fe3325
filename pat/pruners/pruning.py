"""`pat prune`: run one of the pruners on a checkpoint and leave a checked folder with `prune.json` and a model card."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Literal

import torch

from pat.bases.writer_text import check_enough_memory, check_enough_text
from pat.bases.writers import CUT_FOLDER, WHOLE_FOLDER, refit_after_cut
from pat.checkpoints import checkpoint
from pat.checkpoints.base_checks import check_base
from pat.checkpoints.card import model_card
from pat.checkpoints.lineage import lineage_of
from pat.checkpoints.merge import summary
from pat.data.calibration import Calibration
from pat.errors import UserError
from pat.families.known import family_of
from pat.io import artefacts
from pat.io.marks import FOLDERS, check_replaceable
from pat.io.progress import say
from pat.io.provenance import checksums, provenance
from pat.machine.threads import threads_given_back
from pat.models.reshaped import ReshapedConfig
from pat.pruners import Pruner, pruner_named
from pat.pruners.budget import prune_ratio
from pat.pruners.job import PruneJob
from pat.settings.budget import Budget
from pat.settings.jobs import PruneSettings

PRUNE_RECORD = "prune.json"


@threads_given_back
def prune(
    base: Path,
    pruner: str,
    asked: float | Budget | None,
    align: int | Literal["auto"],
    out: Path,
    calibration: Calibration | None = None,
    threads: int = 1,
    own: PruneSettings | None = None,
    *,
    force: bool = False,
) -> dict[str, Any]:
    """Write the pruned checkpoint to `out` and return its record; what is asked for is a ratio, or a budget, which is solved first.

    Raises UserError on an unknown pruner, a ratio outside (0, 1), a budget or size that cannot be, missing calibration text, a base that is
    incomplete, changed or reshaped, or where `out` holds something else than such a model, unless with `force`.
    """
    check_replaceable(out, FOLDERS["prune"], force=force)
    own = own or PruneSettings()
    chosen = pruner_for(pruner, asked, own)
    check_base(base)
    checkpoint.check_opens(base)
    artefacts.check_if_listed(base)
    config = checkpoint.load_config(base)
    if isinstance(config, ReshapedConfig):
        raise UserError(f"{base}: is reshaped already; pruners take stock models")
    if (reason := chosen.reason_not_to(family_of(config))) is not None:
        raise UserError(f"--pruner {pruner}: is not possible for {base}: {reason}")
    ratio = prune_ratio(base, pruner, asked, own, align)
    torch.set_num_threads(threads)
    with artefacts.new_folder(out, FOLDERS["prune"], force=force) as folder:
        record = _pruned(chosen, PruneJob(base, ratio, align, calibration, own), folder)
        settings = {"pruner": pruner, "ratio": ratio, "align": align, "calibration": _identity(calibration), **own.model_dump(mode="json")}
        inputs = {"base": base, "calibration": calibration.path if calibration else None}
        seed, device = (calibration.seed, calibration.device) if calibration else (0, None)
        record["provenance"] = provenance(settings, seed, device, inputs)
        artefacts.write_json(folder / PRUNE_RECORD, record)
        card = model_card(record, f"pruned ({pruner})", checkpoint.load_config(folder), lineage_of(base))
        artefacts.write_text(folder / "README.md", card)
    say(summary(record))
    return record


def pruner_for(name: str, asked: float | Budget | None, own: PruneSettings) -> Pruner:
    """Return the pruner of a name. Raises UserError where there is none, on a ratio outside (0, 1), and on settings without effect."""
    chosen = pruner_named(name)
    if isinstance(asked, float) and not 0.0 < asked < 1.0:
        raise UserError(f"--ratio {asked}: must lie between 0 and 1")
    for key in own.model_dump(exclude_defaults=True):
        if (reason := chosen.why_idle(key, own)) is not None:
            raise UserError(f"settings: {key}: has no effect on --pruner {name}: {reason}; leave it out")
    return chosen


def _pruned(pruner: Pruner, job: PruneJob, folder: Path) -> dict[str, Any]:
    """Write what a pruner makes of its job into `folder`, with refitted writes where that is asked for; return the record."""
    if not (pruner.refits_writers(job.settings) and _can_be_refitted(job)):
        record = pruner(job, folder)
        if (folder / WHOLE_FOLDER).is_dir():
            shutil.rmtree(folder / WHOLE_FOLDER)
        return record
    check_enough_text(job.source, job.writers_text())
    check_enough_memory(job.source, job.writers_text())
    (folder / CUT_FOLDER).mkdir()
    record = pruner(job, folder / CUT_FOLDER)
    return record | {"writers": refit_after_cut(job.source, folder, record, job.writers_text())}


def _can_be_refitted(job: PruneJob) -> bool:
    """Return whether a model has writes that can be refitted, and say why where it has none. Raises UserError where that is asked for."""
    if (reason := family_of(checkpoint.load_config(job.source)).refit_obstacle) is None:
        return True
    if job.settings.writers == "refitted":
        raise UserError(f"prune.writers: refitted is not possible for {job.source}: {reason}; leave it out")
    say(f"prune: the writers of {job.source} stay plain: {reason}")
    return False


def _identity(calibration: Calibration | None) -> dict[str, object] | None:
    """Return which text was looked at, wherever it lay."""
    if calibration is None:
        return None
    return {"sha256": checksums(calibration.path), "tokens": calibration.tokens} | calibration.naming("columns")
