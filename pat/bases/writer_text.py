"""The text that writers are refitted to: how much of it, in which rows, and what of it is held out.

Axes: N rows of text, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from pat.checkpoints import checkpoint
from pat.data.calibration import Calibration, blocks
from pat.errors import UserError
from pat.families.known import Family, family_of

LENGTH = 256
"""Tokens of a row of text."""
TOKENS_AN_INPUT = 256
"""Of text for each input of the widest write. In a trial on SmolLM2-135M half as many cost 3.7 % of perplexity (docs/experiments.md)."""
ROWS = 32
HELD_OUT = 1 / 8
"""Of the text, on which nothing is fitted: a write changes only where that helps there."""


def check_enough_text(source: Path, calibration: Calibration) -> None:
    """Raise UserError where the text is too short to keep a part of it back; before a cut, which can take long."""
    length = _row_length(checkpoint.load_config(source))
    least = 2 * length
    _full_rows(replace(calibration, tokens=calibration.tokens and min(calibration.tokens, least)), source, length, least)


def text_to_fit(pruned: PreTrainedModel, calibration: Calibration, source: Path) -> tuple[Tensor, int]:
    """Return full rows of text, (N, T), and how many of them to work through at once, which divides N."""
    family = family_of(pruned.config)
    widest = max(linear_named(pruned, name).in_features for name in _writes(family, pruned))
    ids_NT = _full_rows(calibration, source, _row_length(pruned.config), TOKENS_AN_INPUT * widest)
    rows = min(ROWS, max(1, round(len(ids_NT) * HELD_OUT)))  # so that the part that is held out can be whole batches
    return ids_NT[: len(ids_NT) // rows * rows], rows


def _row_length(config: Any) -> int:
    return min(LENGTH, int(config.max_position_embeddings))


def _full_rows(calibration: Calibration, source: Path, length: int, tokens: int) -> Tensor:
    """Return two rows of text or more, none of them padded. Raises UserError where there is less."""
    text = blocks(calibration, checkpoint.load_tokenizer(source), length, tokens)
    ids_NT = text.ids_NT[text.mask_NT.all(-1)]
    if len(ids_NT) < 2:
        raise UserError(
            f"--calibration: {int(text.mask_NT.sum())} tokens are too few to refit writers on one part and judge by another; "
            f"give {2 * length} at least, or set prune.writers: plain"
        )
    return ids_NT


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


def linear_named(module: nn.Module, name: str) -> nn.Linear:
    """Return the linear layer of a name."""
    found = module.get_submodule(name)
    assert isinstance(found, nn.Linear)
    return found
