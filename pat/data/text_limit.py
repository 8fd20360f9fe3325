"""How much of a held-out text is scored: all of it, or its beginning, in windows of the model's context. Knows nothing of models."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from transformers import PreTrainedTokenizerBase


def first_windows(documents: Sequence[str], tokenizer: PreTrainedTokenizerBase, context: int, limit: int | None) -> list[str]:
    """Return the first documents that fill at most `limit` windows of `context` tokens; None keeps all.

    Where a document is longer than the windows that are left, it is cut, at the end of a line or, if need be, of a word or, in a script
    without spaces, of a character: what is scored is text again, and its bytes are those of its tokens. At least one window's worth is
    kept.
    """
    if limit is None:
        return list(documents)
    kept: list[str] = []
    left = limit
    room = context - 1  # a window may open with BOS
    for document in documents:
        needed = math.ceil(_lengths(tokenizer, [document])[0] / room)
        if needed > left:
            return [*kept, beginning] if left and (beginning := _beginning(document, tokenizer, left * room)).strip() else kept
        kept.append(document)
        left -= needed
    return kept


def _beginning(document: str, tokenizer: PreTrainedTokenizerBase, tokens: int) -> str:
    """Return the lines, or else the words, or else the characters that the document begins with and that have at most so many tokens."""
    lines = document.splitlines(keepends=True)
    words = [f"{word} " for word in lines[0].split(" ")]
    return _that_fit(lines, tokenizer, tokens) or _that_fit(words, tokenizer, tokens) or _characters_that_fit(lines[0], tokenizer, tokens)


def _that_fit(pieces: Sequence[str], tokenizer: PreTrainedTokenizerBase, tokens: int) -> str:
    totals = accumulate(_lengths(tokenizer, pieces))
    return "".join(piece for piece, total in zip(pieces, totals, strict=True) if total <= tokens)


def _characters_that_fit(line: str, tokenizer: PreTrainedTokenizerBase, tokens: int) -> str:
    too_long = bisect_right(range(len(line) + 1), tokens, key=lambda end: _lengths(tokenizer, [line[:end]])[0])
    return line[: too_long - 1]


def _lengths(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[int]:
    """Return each text's number of tokens."""
    return [len(ids) for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]]
