"""`pat rotate`: put a base model into a basis measured on text; a stock model that computes the same, with `rotation.json` beside it.

Owns the verb and its record. The change of basis is rotation.py's; which one is asked of bases.py and gradient_basis.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from pat.bases.change_of_basis import MEASURED, write_in_basis
from pat.checkpoints import checkpoint
from pat.checkpoints.base_checks import check_base
from pat.checkpoints.basis_record import ROTATION_RECORD, basis_of
from pat.checkpoints.merge import record_of, summary
from pat.checkpoints.readers_record import readers_of
from pat.data.calibration import Calibration
from pat.errors import UserError
from pat.io import artefacts
from pat.io.marks import FOLDERS, check_replaceable
from pat.io.progress import say
from pat.io.provenance import checksums, provenance
from pat.machine.threads import threads_given_back
from pat.models.reshaped import ReshapedConfig
from pat.settings.config import Tie

QUARTERS = (0.25, 0.5, 0.75)


@threads_given_back
def rotate(
    base: Path, basis: str, calibration: Calibration, out: Path, threads: int = 1, tie: Tie = "keep", *, force: bool = False
) -> dict[str, Any]:
    """Write `base` in another basis to `out`, the most important direction first, and return its record.

    `captured` in it is the importance that the leading quarters of the directions hold; where embedding and head are one matrix and stay
    one (`tie`), `text` says how far the model is from its base. Raises UserError on a basis that is none, on a base that is incomplete,
    changed, rotated, refitted or reshaped, where the tie cannot be kept, and where `out` holds something else, unless with `force`.
    """
    check_replaceable(out, FOLDERS["rotate"], force=force)
    if basis not in MEASURED:
        raise UserError(f"--basis {basis!r}: must be one of {', '.join(sorted(MEASURED))}")
    check_base(base, tokenizer=True)
    artefacts.check_if_listed(base)
    if (there := basis_of(base)) != "native":
        raise UserError(f"{base}: is in the {there} basis already; give the model that it was made from")
    if readers_of(base) != "plain":
        raise UserError(f"{base}: its readers are refitted to channels of its own basis; rotate first")
    if isinstance(checkpoint.load_config(base), ReshapedConfig):
        raise UserError(f"{base}: is reshaped, its layers do not share one stream; give a stock model")
    torch.set_num_threads(threads)
    with artefacts.new_folder(out, FOLDERS["rotate"], force=force) as folder:
        found, exactness = write_in_basis(base, folder, basis, calibration, tie)
        captured = {f"{share:g}": found.captured(round(share * len(found.importance_D))) for share in QUARTERS}
        record = record_of(base, folder, 0.0) | exactness | {"basis": basis, "captured": captured}
        settings: dict[str, object] = {"basis": basis, "calibration": checksums(calibration.path), "tokens": calibration.tokens}
        settings |= calibration.naming("calibration_columns")
        settings |= {"tie": tie} if record["tie"] else {}
        inputs = {"base": base, "calibration": calibration.path}
        record["provenance"] = provenance(settings, calibration.seed, calibration.device, inputs)
        artefacts.write_json(folder / ROTATION_RECORD, record)
    if record["tie"] == "kept":
        apart, ratio = len(record["apart"]), record["text"]["perplexity_ratio"]
        say(f"embedding and head stay one matrix: {apart} channels are not rotated, perplexity on text {ratio:.4f} times the base's")
    say(f"{basis} basis; {summary(record)}")
    return record
