"""`pat rotate`: put a base model into a basis measured on text; a stock model that computes the same, with `rotation.json` beside it.

Owns the verb and its record. The change of basis is rotation.py's; which one is asked of bases.py and gradient_basis.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pat import artefacts, checkpoint
from pat.base_checks import check_base
from pat.bases import Basis, pca_basis
from pat.basis_record import ROTATION_RECORD, basis_of
from pat.calibration import Blocks, Calibration, blocks_for
from pat.errors import UserError
from pat.gradient_basis import gradient_basis
from pat.importance import gradient_batches
from pat.merge import gap_between, record_of, summary
from pat.progress import say
from pat.provenance import provenance
from pat.readers_record import readers_of
from pat.reshaped import ReshapedConfig
from pat.rotation import write_rotated
from pat.threads import threads_given_back

QUARTERS = (0.25, 0.5, 0.75)
BASES: dict[str, Callable[[Any, Blocks], Basis]] = {
    "pca": lambda model, text: pca_basis(model, text.batches()),
    "gradient": lambda model, text: gradient_basis(model, gradient_batches(text)),
}


@threads_given_back
def rotate(base: Path, basis: str, calibration: Calibration, out: Path, threads: int = 1) -> dict[str, Any]:
    """Write `base` in another basis to `out`, the most important direction first, and return its record.

    `captured` in it is the importance that the leading quarters of the directions hold. Raises UserError on a basis that is none, or a
    base that is incomplete, changed, rotated, refitted or reshaped.
    """
    if basis not in BASES:
        raise UserError(f"--basis {basis!r}: must be one of {', '.join(sorted(BASES))}")
    check_base(base, tokenizer=True)
    artefacts.check_if_listed(base)
    if (there := basis_of(base)) != "native":
        raise UserError(f"{base}: is in the {there} basis already; give the model that it was made from")
    if readers_of(base) != "plain":
        raise UserError(f"{base}: its readers are refitted to channels of its own basis; rotate first")
    if isinstance(checkpoint.load_config(base), ReshapedConfig):
        raise UserError(f"{base}: is reshaped, its layers do not share one stream; give a stock model")
    torch.set_num_threads(threads)
    text = blocks_for(checkpoint.load_config(base), calibration, checkpoint.load_tokenizer(base))
    found = BASES[basis](checkpoint.load_to_measure(base, calibration.device), text)
    with artefacts.new_folder(out) as folder:
        write_rotated(base, folder, found.directions_DD)
        gap = gap_between(lambda dtype: checkpoint.load_model(base, dtype), folder, base)
        captured = {f"{share:g}": found.captured(round(share * len(found.importance_D))) for share in QUARTERS}
        record = record_of(base, folder, 0.0) | gap | {"basis": basis, "captured": captured, "tokens": int(text.mask_NT.sum())}
        settings = {"basis": basis, "calibration": artefacts.sha256(calibration.path), "tokens": calibration.tokens}
        inputs = {"base": base, "calibration": calibration.path}
        record["provenance"] = provenance(settings, calibration.seed, calibration.device, inputs)
        artefacts.write_json(folder / ROTATION_RECORD, record)
    say(f"{basis} basis; {summary(record)}")
    return record
