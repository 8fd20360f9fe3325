"""The text that writers are refitted to: how much, in which rows, what of it is held out, and whether the machine can hold its streams.

Axes: N rows of text, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from pat.checkpoints import checkpoint
from pat.data.calibration import Calibration, blocks
from pat.errors import UserError
from pat.families.known import Family, family_of, head_size, neurons
from pat.io.progress import say
from pat.machine.host_memory import host_bytes
from pat.models.submodules import linear_named
from pat.models.writer_streams import ROWS, default_tokens, fewest_tokens, row_length, stream_bytes
from pat.settings.fields import GIB

HELD_OUT = 1 / 8
"""Of the text, on which nothing is fitted: a write changes only where that helps there."""


def check_enough_text(source: Path, calibration: Calibration) -> None:
    """Raise UserError where the text is too short to keep a part of it back; before a cut, which can take long."""
    config = checkpoint.load_config(source)
    least = fewest_tokens(config.max_position_embeddings)
    if calibration.tokens and calibration.tokens < least:
        raise UserError(_too_few("prune.writer_tokens, or else --calibration-tokens", calibration.tokens, least))
    _full_rows(replace(calibration, tokens=calibration.tokens and least), source, config, least)


def check_enough_memory(source: Path, calibration: Calibration) -> None:
    """Raise UserError where the machine cannot hold the whole model's streams of as many tokens as are asked for; before a cut.

    Where the number is left open, what is left of the widest write decides on it: then the user is warned.
    """
    config = checkpoint.load_config(source)
    family, number_bytes = family_of(config), checkpoint.affordable_dtype(source).itemsize
    widest = max(neurons(config), config.num_attention_heads * head_size(config))

    def needed(tokens: int) -> int:
        return stream_bytes(family, tokens, config.hidden_size, number_bytes, left=0)

    if needed(calibration.tokens or default_tokens(widest)) <= host_bytes():
        return  # however much text there is
    tokens = _full_rows(calibration, source, config, default_tokens(widest)).numel()
    if (problem := _too_large(needed(tokens), tokens)) is None:
        return
    if calibration.tokens:
        raise UserError(problem)
    say(f"warning: where the cut leaves the widest layer as it is, {problem}")


def check_streams_fit(base: PreTrainedModel, pruned: PreTrainedModel, tokens: int) -> None:
    """Raise UserError where the machine cannot hold two models' streams of so many tokens."""
    family, (hidden_size, left) = family_of(base.config), (model.config.hidden_size for model in (base, pruned))
    if (problem := _too_large(stream_bytes(family, tokens, hidden_size, base.dtype.itemsize, left), tokens)) is not None:
        raise UserError(problem)


def _too_large(needed: int, tokens: int) -> str | None:
    """Return what is wrong with streams of so many tokens that take so many bytes; None where the machine has more."""
    if needed <= (there := host_bytes()):
        return None
    fitting = tokens * there // needed // 2  # models and libraries need some of it too
    return (
        f"prune.writer_tokens: the streams of {tokens:,} tokens, to which writers are refitted, take {needed / GIB:,.1f} GiB, and the "
        f"machine has {there / GIB:,.1f} GiB of memory; give fewer, {fitting:,} take half of it, or set prune.writers: plain"
    )


def text_to_fit(pruned: PreTrainedModel, calibration: Calibration, source: Path) -> tuple[Tensor, int]:
    """Return full rows of text, (N, T), and how many of them to work through at once, which divides N."""
    family = family_of(pruned.config)
    widest = max(linear_named(pruned, name).in_features for name in _writes(family, pruned))
    ids_NT = _full_rows(calibration, source, pruned.config, default_tokens(widest))
    rows = min(ROWS, max(1, round(len(ids_NT) * HELD_OUT)))  # so that the part that is held out can be whole batches
    return ids_NT[: len(ids_NT) // rows * rows], rows


def _full_rows(calibration: Calibration, source: Path, config: Any, tokens: int) -> Tensor:
    """Return two rows of text or more, none of them padded. Raises UserError where there is less."""
    text = blocks(calibration, checkpoint.load_tokenizer(source), row_length(config.max_position_embeddings), tokens)
    ids_NT = text.ids_NT[text.mask_NT.all(-1)]
    if len(ids_NT) < 2:
        raise UserError(_too_few("--calibration", int(text.mask_NT.sum()), fewest_tokens(config.max_position_embeddings)))
    return ids_NT


def _too_few(where: str, tokens: int, least: int) -> str:
    return (
        f"{where}: {tokens} tokens are too few to refit writers on one part and judge by another; give {least} at least, or set "
        "prune.writers: plain"
    )


def held_batches(count: int) -> int:
    """Return how many of `count` batches are held out."""
    return max(1, round(HELD_OUT * count))


def _writes(family: Family, model: PreTrainedModel) -> Iterator[str]:
    return (
        family.in_layer(layer, block.write)
        for layer in range(model.config.num_hidden_layers)
        for block in family.blocks
        if block.writes_linearly
    )
