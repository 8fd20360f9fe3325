"""The text a pruner looks at before it cuts: rows of an instruction set or of plain text, packed into equal blocks of tokens.

Owns the choice of rows and their packing; what is measured on them is the pruner's.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from pat.data.calibration_size import SEQUENCE_LENGTH, default_tokens
from pat.data.chat import chat_text
from pat.data.opening import opens_texts
from pat.data.rows import TOOLS, Columns, Row, as_document, read_rows
from pat.errors import UserError
from pat.io.progress import Progress, say

FEWEST_TOKENS = 8
"""Less is no text: the quarter that is kept back would have nothing to predict."""
TOKENS_AT_ONCE = 8192
CHECK_TOKENS = 4096
"""Text that nothing is fitted on: with as much, a perplexity of two almost equal models is compared to a thousandth."""


@dataclass(frozen=True)
class Calibration:
    """Where calibration text comes from and what it is worked through on.

    `path` is a file of rows of any form (rows.py). `tokens` None means as many as the pruner's paper takes; `columns` is
    what the file calls our fields.
    """

    path: Path
    tokens: int | None = None
    seed: int = 0
    device: str = "cpu"
    columns: Columns | None = None

    def naming(self, key: str) -> dict[str, object]:
        """Return what a record says under `key` of what the file calls our fields; nothing where it calls them as we do."""
        return {key: dict(self.columns)} if self.columns else {}


@dataclass(frozen=True)
class Blocks:
    """Token ids and attention mask, both (N, T); only the last block can have padding, on its right."""

    ids_NT: Tensor
    mask_NT: Tensor

    def batches(self, size: int | None = None) -> Iterator[dict[str, Tensor]]:
        """Yield a model's arguments, `size` blocks at a time; without it as many as hold 8192 tokens. Long passes tell how far they are."""
        size = size or max(1, TOKENS_AT_ONCE // self.ids_NT.shape[1])
        progress = Progress("measuring on text, blocks", len(self.ids_NT))
        for start in range(0, len(self.ids_NT), size):
            progress.update(start)
            yield {"input_ids": self.ids_NT[start : start + size], "attention_mask": self.mask_NT[start : start + size]}

    def split(self, tokens: int) -> tuple[Blocks, Blocks]:
        """Return the text without its end, and the end: `tokens` of it in whole blocks, at most a quarter. Of one block it is a quarter."""
        count, length = self.ids_NT.shape
        if count == 1:
            at = int(self.mask_NT.sum()) * 3 // 4
            return Blocks(self.ids_NT[:, :at], self.mask_NT[:, :at]), Blocks(self.ids_NT[:, at:], self.mask_NT[:, at:])
        blocks = min(max(1, tokens // length), max(1, count // 4))
        return Blocks(self.ids_NT[:-blocks], self.mask_NT[:-blocks]), Blocks(self.ids_NT[-blocks:], self.mask_NT[-blocks:])


def blocks(calibration: Calibration, tokenizer: PreTrainedTokenizerBase, length: int, tokens: int) -> Blocks:
    """Return rows in random order, end tokens between them, cut into blocks of `length` up to `calibration.tokens` or else `tokens`.

    A BOS that scoring puts before texts, and the tokenizer does not, opens every second block: what is fitted to text that never shows it
    is at a loss wherever a text begins (docs/experiments.md, 2026-11-29). The last block is padded where the file holds less. Raises
    UserError on a row that is neither text nor instruction, and where that is hardly any text.
    """
    wanted = calibration.tokens or tokens
    rows = list(read_rows(calibration.path, calibration.columns))
    random.Random(calibration.seed).shuffle(rows)
    ids: list[int] = []
    for place, row in rows:
        if len(ids) >= wanted:
            break
        encoded = _tokens(place, row, tokenizer)
        ids += encoded if encoded[-1:] == [tokenizer.eos_token_id] else [*encoded, tokenizer.eos_token_id]
    ids = _with_openings(ids, tokenizer, length)[:wanted]
    if len(ids) < FEWEST_TOKENS:
        asked = f"calibration tokens asked for: {calibration.tokens}; " if calibration.tokens else ""
        raise UserError(f"{calibration.path}: {asked}{len(ids)} tokens are too few to measure on, at least {FEWEST_TOKENS} are needed")
    if calibration.tokens and len(ids) < calibration.tokens:
        say(f"{calibration.path}: holds {len(ids):,} of the {calibration.tokens:,} calibration tokens asked for; all are measured on")
    missing = -len(ids) % length
    ids_NT = torch.tensor(ids + [tokenizer.pad_token_id] * missing).view(-1, length)
    mask_NT = torch.tensor([1] * len(ids) + [0] * missing).view(-1, length)
    return Blocks(ids_NT, mask_NT)


def blocks_for(model_config: Any, calibration: Calibration, tokenizer: PreTrainedTokenizerBase) -> Blocks:
    """Return as much text as the statistics of the stream need, in blocks of 2048 tokens or of the model's context."""
    length = min(SEQUENCE_LENGTH, model_config.max_position_embeddings)
    return blocks(calibration, tokenizer, length, default_tokens(model_config.hidden_size))


def blocks_and_check(model_config: Any, calibration: Calibration, tokenizer: PreTrainedTokenizerBase) -> tuple[Blocks, Blocks]:
    """Return what `blocks_for` does, and the text that follows it, on which nothing is to be measured but how well it went.

    Where the source has no more text, the end of what it has is kept back.
    """
    text = blocks_for(model_config, calibration, tokenizer)
    length = text.ids_NT.shape[1]
    tokens = calibration.tokens or default_tokens(model_config.hidden_size)
    longer = blocks(replace(calibration, tokens=None), tokenizer, length, tokens + length + CHECK_TOKENS)
    start = -(-tokens // length)
    check = Blocks(longer.ids_NT[start:], longer.mask_NT[start:])
    return (text, check) if check.mask_NT.sum() >= min(length, CHECK_TOKENS) // 2 else text.split(CHECK_TOKENS)


def _with_openings(ids: list[int], tokenizer: PreTrainedTokenizerBase, length: int) -> list[int]:
    """Return tokens so that every second block of `length` begins with BOS, where the tokenizer has one that begins no text by itself."""
    opening = tokenizer.bos_token_id
    if opening in (None, tokenizer.eos_token_id) or opens_texts(tokenizer):
        return ids
    pair = 2 * length - 1
    return [token for start in range(0, len(ids), pair) for token in (opening, *ids[start : start + pair])]


def _tokens(place: str, row: Row, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return a row as the model would see it: plain, or the prompt with its answer, or the conversation, as in tuning."""
    if "messages" in row:
        return list(
            tokenizer(chat_text(tokenizer, row["messages"], place, row.get(TOOLS)), add_special_tokens=False, verbose=False)["input_ids"]
        )
    return list(tokenizer(as_document(row), verbose=False)["input_ids"])
