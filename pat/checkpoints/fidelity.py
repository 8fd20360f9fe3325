"""Whether a checkpoint that was written computes what it should: two comparisons with the model that it stands for, and their bounds.

Before rounding, in fp32, its logits must be the reference's: what is left is the order of sums. As written, each tensor must be the
rounding of that, and predictions on text the reference's: what is left is what the dtype cannot hold. Where either is more than of any
model of use, it is held against the same weights with roundings that fall at random, in fp32 or in that dtype. A maximum over random tokens
tells neither from a mistake.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div, log_softmax
from transformers import PreTrainedModel

from pat.checkpoints import checkpoint
from pat.checkpoints.probe_text import probe_for
from pat.checkpoints.random_rounding import nudged_at_random, rounded_at_random
from pat.checkpoints.stored import stored_tensors
from pat.checkpoints.unrounded import Written, unrounded_logits
from pat.errors import UserError
from pat.models.masked import kept_channels_only
from pat.models.wide_arithmetic import wide_logits

LARGEST_FOLD_GAP = 2e-4
"""Of the largest logit, before rounding. Right folds stay below 3e-6, on a pretrained model that a cut has upset below 2e-5, and with a
basis for every block below 8e-5; the smallest planted mistake makes 4e-4."""
TIMES_NUDGED = 20.0
"""Half of a pretrained model can lie above that bound: 2.3e-4 was seen, 1.5e-4 on another processor, where fp32 weights off by their last
digit make up to 4.5e-5. Sums of many are off by some digits more than one weight is; a mistake is off by leading ones."""
LARGEST_KL = 1e-3
"""Nats per token on text, as written. Right models of use stay below it in any dtype, wrong ones begin at 0.03."""
RANDOM_ROUNDINGS = 3
MOST_ROUNDINGS = 12
TIMES_ROUNDING = 4.0
"""What a cut has upset, a pretrained model at half its width and not yet tuned, can lie above that bound in half precision, though every
tensor is rounded rightly: a few tokens on which single channels are huge decide, and roundings at random make 9e-4 to 2e-2 there. Three of
them tell mostly: the right rounding made at most 2.2 times the largest of them in 42 models, and mistakes make ten times as much and more.
Once it made 4.2 times as much, so more are drawn before a model is refused. Where that is more than mistakes can make, what finds those
is that each tensor is the rounding of what the comparison before rounding has found right (`unrounded`)."""
WIDE_DTYPES = {"F32", "F64"}
HALF_DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16}
logger = logging.getLogger(__name__)
LoadReference = Callable[[torch.dtype], nn.Module]


def gap_between(load_reference: LoadReference, written: Written) -> dict[str, Any]:
    """Return how far a written checkpoint is from its reference: the fields `kl_on_text`, `fold_gap` and the like of a record.

    `load_reference` gets the dtype to load the source's weights in. One model is in memory at a time, computing in fp32 whatever it is
    stored in. Raises RuntimeError where the checkpoint is not what it should be: it must not be used.
    """
    source_dtypes, dtypes = ({tensor.dtype for tensor in stored_tensors(each).values()} for each in (written.source, written.folder))
    probe = probe_for(written.source)
    expected_BTV = wide_logits(load_reference(loading_dtype(source_dtypes)), probe.ids_BT)
    if not bool(expected_BTV.isfinite().all()):
        raise UserError(f"{written.source}: its own predictions on text are NaN or infinite; its weights, or the adapter's, are damaged")
    found_BTV = wide_logits(checkpoint.load_model(written.folder, loading_dtype(dtypes)), probe.ids_BT)
    unrounded_BTV = found_BTV if dtypes <= WIDE_DTYPES else unrounded_logits(written, probe.ids_BT)
    size = expected_BTV.abs().max().item()
    gap = (expected_BTV - unrounded_BTV).abs().max().item()
    record: dict[str, Any] = {
        "kl_on_text": mean_kl(expected_BTV, found_BTV),
        "kl_dtype": "+".join(sorted({str(HALF_DTYPES.get(name, torch.float32)).removeprefix("torch.") for name in dtypes})),
        "kl_probe": probe.kind,
        "fold_gap": gap / size if size else gap,
        "logit_gap": gap,
        "logit_gap_dtype": "float32",
        "logit_size": size,
    }
    if LARGEST_FOLD_GAP < record["fold_gap"] < math.inf:
        record["fold_gap_of_rounding"] = _gap_of_rounding(written, probe.ids_BT, unrounded_BTV) / size
    _check_fold(record, written.folder)
    if record["kl_dtype"] != "float32" and LARGEST_KL < record["kl_on_text"] < math.inf:
        record |= _kl_of_rounding(written, probe.ids_BT, expected_BTV, record["kl_on_text"])
    _check_kl(record, written.folder)
    return record


def _kl_of_rounding(written: Written, ids_BT: Tensor, expected_BTV: Tensor, found: float) -> dict[str, Any]:
    """Return the largest mean KL that some roundings of the right weights make, each of which falls its own way, and how many they are.

    Where those few do not account for the KL that was `found`, more are drawn: single roundings decide, and few draws can miss them.
    """
    made = list[float]()
    for draw in _draws(MOST_ROUNDINGS):
        if len(made) >= RANDOM_ROUNDINGS and found <= TIMES_ROUNDING * max(made):
            break
        made.append(mean_kl(expected_BTV, unrounded_logits(written, ids_BT, partial(rounded_at_random, draw=draw))))
    return {"kl_of_rounding": max(made), "kl_roundings": len(made)}


def _gap_of_rounding(written: Written, ids_BT: Tensor, unrounded_BTV: Tensor) -> float:
    """Return by how much the last digits of fp32 weights, at random, change a logit at most."""
    disturbed = (unrounded_logits(written, ids_BT, partial(nudged_at_random, draw=draw)) for draw in _draws(RANDOM_ROUNDINGS))
    return max((logits_BTV - unrounded_BTV).abs().max().item() for logits_BTV in disturbed)


def _draws(number: int) -> Iterator[torch.Generator]:
    return (torch.Generator().manual_seed(seed) for seed in range(number))


def loading_dtype(dtypes: set[str]) -> torch.dtype:
    """Return the dtype in which a checkpoint's stored dtypes are all held without loss; of fp64 what fp32 holds."""
    only = next(iter(dtypes)) if len(dtypes) == 1 else None
    return HALF_DTYPES.get(only or "", torch.float32)


def mean_kl(expected_BTV: Tensor, found_BTV: Tensor) -> float:
    """Return the mean over tokens of KL(expected ‖ found), in nats; NaN where either is not finite."""
    total = sum(
        kl_div(log_softmax(found_TV.double(), -1), log_softmax(expected_TV.double(), -1), reduction="sum", log_target=True).item()
        for expected_TV, found_TV in zip(expected_BTV, found_BTV, strict=True)
    )
    return max(0.0, total / (expected_BTV.shape[0] * expected_BTV.shape[1])) if math.isfinite(total) else math.nan


def _check_fold(record: dict[str, Any], folder: Path) -> None:
    """Raise RuntimeError where the logits before rounding are off by more than sums are, NaN included."""
    largest = max(LARGEST_FOLD_GAP, TIMES_NUDGED * record.get("fold_gap_of_rounding", 0.0))
    if not record["fold_gap"] <= largest:
        raise RuntimeError(
            f"{folder}: before rounding, logits differ from those of the model it stands for by {record['fold_gap']:.2g} of their size "
            f"(at most {largest:.2g} is rounding): the checkpoint is wrong"
        )


def _check_kl(record: dict[str, Any], folder: Path) -> None:
    """Raise RuntimeError where predictions on text are off by more than rounding makes, NaN included; say where that is much."""
    found, of_rounding = record["kl_on_text"], record.get("kl_of_rounding", 0.0)
    largest = max(LARGEST_KL, TIMES_ROUNDING * of_rounding)
    if not found <= largest:
        raise RuntimeError(
            f"{folder}: as written in {record['kl_dtype']}, predictions on text differ from those of the model it stands for by "
            f"{found:.2g} nats per token (at most {largest:.2g} is rounding): the checkpoint is wrong"
        )
    if found > LARGEST_KL:
        logger.warning(
            "%s: rounding to %s changes predictions on text by %.2g nats per token (up to %.2g where it falls at random); the model is "
            "sensitive, fp32 would keep it", folder.name, record["kl_dtype"], found, of_rounding,
        )  # fmt: skip


def gap_to_changed(written: Written, change: Callable[[PreTrainedModel], object]) -> dict[str, Any]:
    """As gap_between, of a written checkpoint and its source after `change`, which makes of it, in place, what the checkpoint stands for.

    It may return a model that takes the source's place, as one with an adapter does.
    """

    def changed(dtype: torch.dtype) -> nn.Module:
        model = checkpoint.load_model(written.source, dtype)
        other = change(model)
        return other if isinstance(other, nn.Module) else model

    return gap_between(changed, written)


def gap_to_zeroed(written: Written, kept_D: Tensor) -> dict[str, Any]:
    """As gap_to_changed, with the dropped channels of the source held at zero."""
    return gap_to_changed(written, lambda model: kept_channels_only(model, kept_D))
