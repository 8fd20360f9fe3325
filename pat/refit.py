"""`pat refit-readers`: a base whose readers make up for the channels that a fixed mask will drop; stock, with `readers.json` beside it.

Owns the verb and its record. The arithmetic is readers.py's, the channels are those that `attach` would keep.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pat import artefacts, checkpoint
from pat.base_checks import check_base
from pat.basis_record import basis_of, tie_of
from pat.calibration import Calibration, blocks_for
from pat.config import Mask, PatConfig
from pat.errors import UserError
from pat.fidelity import gap_between
from pat.importance import channel_importance
from pat.marks import FOLDERS, check_replaceable
from pat.mask import largest
from pat.merge import record_of, summary
from pat.model import planned_width
from pat.progress import say
from pat.provenance import provenance
from pat.readers import Fit, fit_readers, map_norms, write_refitted
from pat.readers_record import READERS_RECORD, readers_of
from pat.reshaped import ReshapedConfig
from pat.threads import threads_given_back
from pat.unrounded import Written


@threads_given_back
def refit_readers(
    base: Path,
    mask: str,
    ratio: float,
    align: int | Literal["auto"],
    calibration: Calibration,
    out: Path,
    data: Path | None = None,
    threads: int = 1,
    *,
    force: bool = False,
) -> dict[str, Any]:
    """Write `base` with readers refitted to the channels that `mask` keeps at `ratio` to `out`, and return its record.

    `data` is the instruction set of the tuning to come, on which some masks are measured. `error` in the record is, a norm, the share of
    its output that plain and refitted readers miss. Raises UserError on a mask that is learned, a width that cannot be, missing data, a
    base that is incomplete, changed, reshaped or refitted already, or where `out` holds something else, unless with `force`.
    """
    check_replaceable(out, FOLDERS["refit-readers"], force=force)
    config = _checked(mask, ratio, align, calibration.seed, data)
    check_base(base, tokenizer=True)
    artefacts.check_if_listed(base)
    if isinstance(checkpoint.load_config(base), ReshapedConfig):
        raise UserError(f"{base}: is reshaped, its layers do not share one stream; give a stock model")
    if readers_of(base) != "plain":
        raise UserError(f"{base}: its readers are refitted already; give the model that it was made from")
    torch.set_num_threads(threads)
    model, tokenizer = checkpoint.load_to_measure(base, calibration.device), checkpoint.load_tokenizer(base)
    kept_D = kept_by(model, tokenizer, config, data)
    fits = fit_readers(model, blocks_for(model.config, calibration, tokenizer).batches(), kept_D)
    with artefacts.new_folder(out, FOLDERS["refit-readers"], force=force) as folder:
        written = write_refitted(base, folder, fits, kept_D)
        record = record_of(base, folder, 0.0) | _gap_to_mapped(written, fits, kept_D)
        record |= {
            "basis": basis_of(base),
            "tie": tie_of(base),
            "mask": mask,
            "pruning_ratio": ratio,
            "kept": kept_D.nonzero().flatten().tolist(),
        }
        record["error"] = {norm: {"plain": fit.error_plain, "least-squares": fit.error} for norm, fit in fits.items()}
        settings: dict[str, object] = {"mask": mask, "ratio": ratio, "align": align, "tokens": calibration.tokens}
        settings |= {name: artefacts.sha256(path) for name, path in (("calibration", calibration.path), ("data", data)) if path}
        inputs = {"base": base, "calibration": calibration.path, "data": data}
        record["provenance"] = provenance(settings, calibration.seed, calibration.device, inputs)
        artefacts.write_json(folder / READERS_RECORD, record)
    say(f"readers refitted to {int(kept_D.sum())} of {len(kept_D)} channels; {summary(record)}")
    return record


def _checked(mask: str, ratio: float, align: int | Literal["auto"], seed: int, data: Path | None) -> PatConfig:
    config = PatConfig(pruning_ratio=ratio, mask=cast(Mask, mask), align=align, readers="least-squares", seed=seed)
    if config.measured and data is None:
        raise UserError(f"--mask {mask}: is measured on the instruction set that the model will be tuned on; give it as --data")
    return config


def kept_by(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: PatConfig, data: Path | None) -> Tensor:
    """Return the channels that `attach` keeps of a base, (D,) boolean. Raises UserError on a width that cannot be."""
    text = None
    if config.measured and data is not None:
        text = blocks_for(model.config, Calibration(data, seed=config.seed), tokenizer)
    importance_D = channel_importance(model, config, text)
    assert importance_D is not None  # a fixed mask has an order
    return largest(importance_D.cpu(), planned_width(model.config, config))


def _gap_to_mapped(written: Written, fits: dict[str, Fit], kept_D: Tensor) -> dict[str, Any]:
    """As the merge's gap, between the base whose norms hand on the prediction, and the checkpoint whose readers have taken it up."""

    def mapped(dtype: torch.dtype) -> nn.Module:
        model = checkpoint.load_model(written.source, dtype)
        map_norms(model, fits, kept_D)
        return model

    return gap_between(mapped, written)
