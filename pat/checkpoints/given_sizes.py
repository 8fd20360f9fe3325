"""`pat sizes`: what a checkpoint that no step here has made holds, beside the base it is to be compared with. Reads shapes, no weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pat.checkpoints import checkpoint
from pat.checkpoints.base_checks import check_model
from pat.checkpoints.merge import record_of
from pat.errors import UserError
from pat.io import artefacts
from pat.io.marks import KINDS, check_replaceable
from pat.io.progress import say
from pat.io.provenance import provenance
from pat.models.reshaped import ReshapedConfig


def given_sizes(base: Path, model: Path, ratio: float, out: Path, *, force: bool = False) -> dict[str, Any]:
    """Write sizes of `model` beside those of `base` to `out` and return them, with the keys of a merge's record; no logits are compared.

    Raises UserError where one of them is incomplete, changed or of an unknown architecture, and where `out` holds something else, unless
    with `force`.
    """
    check_replaceable(out, KINDS["sizes"], force=force)
    if not 0 <= ratio < 1:
        raise UserError(f"--ratio {ratio}: must be a share from 0 to below 1")
    for folder in (base, model):
        check_model(folder)
        artefacts.check_if_listed(folder)
    before, after = checkpoint.load_config(base), checkpoint.load_config(model)
    narrower = before.hidden_size != after.hidden_size and not isinstance(after, ReshapedConfig)
    record = record_of(base, model, ratio, share_of="hidden size" if narrower else "parameters")
    whole, left = (record["parameters"][when]["unique"] for when in ("before", "after"))
    record |= {"logit_gap": None, "kl_on_text": None, "provenance": provenance({"ratio": ratio}, 0, inputs={"base": base, "model": model})}
    artefacts.write_json(out, record)
    say(f"{model}: {left:,} parameters, the base {whole:,}")
    return record
