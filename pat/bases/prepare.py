"""`pat prepare`: a base as PAT-G tunes it, rotated into the gradient basis and its readers refitted, in one go; and the tuner of that name.

Owns the verb and what `--tuner pat-g` stands for. The rotation is rotate.py's, the readers are refit.py's.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pat.bases.refit import check_share, refit_readers
from pat.bases.rotate import rotate
from pat.checkpoints import checkpoint
from pat.checkpoints.base_checks import check_base
from pat.checkpoints.basis_record import basis_of
from pat.checkpoints.budget import width_ratio
from pat.checkpoints.readers_record import readers_of
from pat.data.calibration import Calibration
from pat.errors import UserError
from pat.families.known import family_of
from pat.io.marks import FOLDERS, check_replaceable
from pat.settings.budget import Budget
from pat.settings.config import PAT_G, PatChoices, PatConfig, Tie

if TYPE_CHECKING:
    from pat.training.request import TuningRequest


def prepare_base(
    base: Path,
    ratio: float | Budget,
    calibration: Calibration,
    out: Path,
    align: int | Literal["auto"] = "auto",
    threads: int = 1,
    tie: Tie = "keep",
    *,
    force: bool = False,
) -> dict[str, Any]:
    """Write `base` as `PatConfig.pat_g(ratio)` wants it to `out`, and return its record; `kept` in it is what `attach` asks for.

    A budget in place of the ratio is solved for the base. The rotated model lies beside `out` meanwhile; with `force` whatever is at `out`
    is replaced. Raises UserError as `rotate` and `refit_readers` do.
    """
    check_replaceable(out, FOLDERS["refit-readers"], force=force)
    asked = width_ratio(base, PatConfig(pruning_ratio=ratio).pruning_ratio, align, untied=tie == "break")
    check_base(base, tokenizer=True)
    check_share(base, asked, align)  # which the refit would say, after the rotation
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=_folder_of(out)) as between:
        turned = Path(between) / "rotated"
        rotate(base, str(PAT_G["basis"]), calibration, turned, threads, tie)
        return refit_readers(turned, str(PAT_G["mask"]), asked, align, calibration, out, threads=threads, force=force)


def _folder_of(out: Path) -> Path:
    out.parent.mkdir(parents=True, exist_ok=True)
    return out.parent


def as_pat(request: TuningRequest) -> TuningRequest:
    """Return a request as it is, and one for `pat-g` as one for `pat` with PAT-G's mask where the job does not say otherwise.

    Raises UserError where PAT-G's base is not prepared, or cannot be.
    """
    if request.tuner != "pat-g":
        return request
    base, ratio, choices = request.base, request.ratio, request.job.pat
    told = {name: getattr(choices, name) for name in choices.model_fields_set}
    pat = PatChoices.model_validate({**PAT_G, **told})
    if base.is_dir() and ratio and (reason := _obstacle(base, pat)) is not None:
        raise UserError(f"--tuner pat-g with --base {base}: is not possible: {reason}")
    if base.is_dir() and (basis_of(base), readers_of(base)) != (pat.basis, pat.readers) and ratio:
        raise UserError(
            f"--base {base}: --tuner pat-g wants a base in the {pat.basis} basis with readers that are {pat.readers}, this one is in the "
            f"{basis_of(base)} basis with readers that are {readers_of(base)}: give what "
            f"`pat prepare --base MODEL --ratio {ratio:g} --calibration TEXT --out PREPARED` writes"
        )
    return replace(request, tuner="pat", job=request.job.model_copy(update={"pat": pat}))


def _obstacle(base: Path, pat: PatChoices) -> str | None:
    """Return why a model can be no base of PAT-G; None where it can."""
    family = family_of(checkpoint.load_config(base))
    refits = family.readers_obstacle if pat.readers != "plain" else family.width_obstacle
    return refits or (None if pat.basis == "native" else family.rotation_obstacle)
