"""From a base to the same model in a basis measured on text: what `pat rotate` and SliceGPT-1Q have in common.

Owns the choice between the two ways, with embedding and head apart or tied, and what is measured of the result. The record's `text` says
how far a tied model, which is not exact, is from its base on text that nothing was measured on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pat.bases.directions import Basis, principal
from pat.bases.gradient_basis import joined, moments
from pat.bases.rotation import write_rotated
from pat.bases.text_gap import Said, said, text_gap
from pat.bases.tied_rotation import basis_with_channels_apart, write_tied_rotated
from pat.bases.tied_scaling import Scaling, most_apart, scale_denominators, tied_scaling
from pat.checkpoints import checkpoint
from pat.checkpoints.fidelity import gap_between
from pat.data.calibration import Blocks, Calibration, blocks_and_check, blocks_for
from pat.errors import UserError
from pat.families.known import family_of
from pat.method.importance import gradient_batches
from pat.models.second_moment import second_moment
from pat.settings.config import Tie

MEASURED: Mapping[str, Callable[[PreTrainedModel, Blocks], tuple[Tensor, ...]]] = {
    "pca": lambda model, text: (second_moment(model, text.batches()),),
    "gradient": lambda model, text: moments(model, gradient_batches(text)),
}
FOUND: Mapping[str, Callable[..., Basis]] = {"pca": principal, "gradient": joined}
GOOD_RATIO = 1.005
"""Perplexity of the rotated model over the base's: above it more channels are kept out of the rotation, while there are more."""
LARGEST_RATIO = 1.02
"""Above it, by more than two standard errors of the text at hand, the model is refused."""


def write_in_basis(source: Path, folder: Path, basis: str, calibration: Calibration, tie: Tie) -> tuple[Basis, dict[str, Any]]:
    """Write `source` in the basis measured on text into the empty `folder`; return the basis and the record of text and exactness.

    Where embedding and head are one matrix, `tie` says whether they stay one. The record's `tie` is None where they are two anyway.
    Raises UserError where the family has its native basis alone, where they cannot stay one, or where on further text the perplexity would
    be above 1.02 times the base's.
    """
    config, tokenizer = checkpoint.load_config(source), checkpoint.load_tokenizer(source)
    if (reason := family_of(config).rotation_obstacle) is not None:
        raise UserError(f"{source}: cannot be put into another basis: {reason}")
    tied = bool(config.tie_word_embeddings)
    model = checkpoint.load_to_measure(source, calibration.device)
    if tied and tie == "keep":
        return _write_tied(source, folder, basis, model, *blocks_and_check(config, calibration, tokenizer))
    text = blocks_for(config, calibration, tokenizer)
    found = FOUND[basis](*MEASURED[basis](model, text))
    del model
    written = write_rotated(source, folder, found.directions_DD)
    gap = gap_between(lambda dtype: checkpoint.load_model(source, dtype), written)
    return found, gap | {"tie": "broken" if tied else None, "tokens": int(text.mask_NT.sum())}


def _write_tied(
    source: Path, folder: Path, basis: str, model: PreTrainedModel, text: Blocks, check: Blocks
) -> tuple[Basis, dict[str, Any]]:
    measured = MEASURED[basis](model, text)
    reference, device = said(model, check), str(model.device)
    stored, offset = checkpoint.dtype_of(source), family_of(model.config).gain_offset
    least = 0
    while True:
        scaling = tied_scaling(model, text.batches, least).stored_in(stored, offset)
        found = basis_with_channels_apart(FOUND[basis], measured, scaling)
        written = write_tied_rotated(source, folder, found.directions_DD.to(model.device), scaling)
        gap = text_gap(reference, _said_by(folder, device, check))
        least = max(1, 2 * len(scaling.apart))  # where none had to stay apart, one does in the next round
        if gap["perplexity_ratio"] <= GOOD_RATIO or least > most_apart(len(scaling.squares_D)):
            break
        for path in folder.iterdir():
            path.unlink()
    del model
    exact = gap_between(_scaled(source, scaling), written)  # first: no advice on the user's model where the mistake is ours
    if gap["perplexity_ratio"] - 2 * gap["perplexity_ratio_error"] > LARGEST_RATIO:
        raise UserError(
            f"{source}: in the {basis} basis with embedding and head kept one matrix its perplexity on the calibration text is "
            f"{gap['perplexity_ratio']:.3f} times what it was, more than {LARGEST_RATIO:g}: its norms depend too much on channels whose "
            "gains differ; take the two apart with tie: break, or keep the native basis"
        )
    record = {"tie": "kept", "apart": scaling.apart.tolist(), "denominators_off": scaling.error, "text": gap}
    return found, exact | record | {"tokens": int(text.mask_NT.sum())}


def _said_by(folder: Path, device: str, check: Blocks) -> Said:
    return said(checkpoint.load_to_measure(folder, device), check)


def _scaled(source: Path, scaling: Scaling) -> Callable[[torch.dtype], nn.Module]:
    """Return a loader of the base with the norms' denominators of the scaled stream: that is what rotating must not change."""

    def load(dtype: torch.dtype) -> nn.Module:
        model = checkpoint.load_model(source, dtype)
        scale_denominators(model, scaling)
        return model

    return load
