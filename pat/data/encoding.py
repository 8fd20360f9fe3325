"""Rows as token ids, with what of them is learned: of prompts the answer, of conversations what the assistant says, of texts all.

Ids lie in flat arrays, so that a million rows stay small. Axes: T tokens of all pieces, N pieces, R rows that are not blank.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntFlag
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from pat.data.chat import encode_chat
from pat.data.rows import TOOLS, Columns, Row, blank_field, prompt_and_answer, read_rows

ENCODE_BATCH = 1024
Encoded = tuple[list[int], bytearray]
"""Token ids, and for each 1 where it is learned."""


class Fate(IntFlag):
    """What became of a row beside that it is kept."""

    LEFT_OUT = 1
    CUT = 2
    DOUBLE = 4


@dataclass(frozen=True)
class EncodedRows:
    """What rows have become: their pieces one behind the other, how long each is and which row it is of, and the fates of the rows.

    `read` counts the rows with the blank ones.
    """

    ids_T: NDArray[np.int32]
    learned_T: NDArray[np.uint8]
    lengths_N: NDArray[np.int64]
    sources_N: NDArray[np.int64]
    fates_R: NDArray[np.uint8]
    read: int


ARRAYS: dict[str, type[np.generic]] = {
    "ids_T": np.int32,
    "learned_T": np.uint8,
    "lengths_N": np.int64,
    "sources_N": np.int64,
    "fates_R": np.uint8,
}
"""The arrays of `EncodedRows`, each of which can be put behind that of earlier rows."""


def encoded_in_batches(
    path: Path, tokenizer: PreTrainedTokenizerBase, max_length: int, columns: Columns | None = None
) -> Iterator[EncodedRows]:
    """Yield the rows of a file, of any form (rows.py), in pieces of at most `max_length` tokens, some rows at a time.

    Texts that are longer become several pieces. Rows whose prompt alone fills a piece teach nothing and have none; answers are cut. Raises
    UserError where the file is broken.
    """
    seen: set[bytes] = set()
    rows, numbered = read_rows(path, columns), 0
    while batch := list(islice(rows, ENCODE_BATCH)):
        usable = [(place, row) for place, row in batch if blank_field(row) is None]
        growing = _Growing(max_length, numbered)
        for (_, row), encoded in zip(usable, encoded_rows(usable, tokenizer), strict=True):
            growing.add(encoded, is_text="text" in row, is_double=_is_in(seen, encoded))
        numbered += len(usable)
        yield growing.rows(len(batch))


def gathered(batches: Iterable[EncodedRows]) -> EncodedRows:
    """Return batches as one, in memory."""
    read, grown = 0, {name: bytearray() for name in ARRAYS}
    for batch in batches:
        read += batch.read
        for name in ARRAYS:
            grown[name] += getattr(batch, name).tobytes()
    arrays: dict[str, Any] = {name: np.frombuffer(grown[name], kind) for name, kind in ARRAYS.items()}
    return EncodedRows(**arrays, read=read)


class _Growing:
    """The pieces of a batch of rows; `first` is the number of its first row."""

    def __init__(self, max_length: int, first: int) -> None:
        self.max_length, self.first = max_length, first
        self.ids, self.lengths, self.sources = array("i"), array("q"), array("q")
        self.learned, self.fates = bytearray(), bytearray()

    def add(self, encoded: Encoded, *, is_text: bool, is_double: bool) -> None:
        fate = self._pieces_of(*encoded, is_text=is_text)
        self.fates.append(fate | (Fate.DOUBLE if is_double else 0))

    def _pieces_of(self, ids: Sequence[int], learned: bytearray, *, is_text: bool) -> int:
        if is_text:
            for start in range(0, len(ids), self.max_length):
                if start == 0 or len(ids) - start > 1:  # a token alone has nothing that it is predicted from
                    self._keep(ids[start : start + self.max_length], learned[start : start + self.max_length])
            return 0
        if not any(learned[: self.max_length]):
            return Fate.LEFT_OUT
        self._keep(ids[: self.max_length], learned[: self.max_length])
        return Fate.CUT if len(ids) > self.max_length else 0

    def _keep(self, ids: Sequence[int], learned: bytearray) -> None:
        self.ids.extend(ids)
        self.learned.extend(learned)
        self.lengths.append(len(ids))
        self.sources.append(self.first + len(self.fates))

    def rows(self, read: int) -> EncodedRows:
        return EncodedRows(
            np.frombuffer(self.ids, np.int32),
            np.frombuffer(self.learned, np.uint8),
            np.frombuffer(self.lengths, np.int64),
            np.frombuffer(self.sources, np.int64),
            np.frombuffer(self.fates, np.uint8),
            read,
        )


def _is_in(seen: set[bytes], encoded: Encoded) -> bool:
    """Return whether a row like this was seen before; from now on it was."""
    digest = blake2b(array("i", encoded[0]).tobytes() + bytes(encoded[1]), digest_size=16).digest()
    known = digest in seen
    seen.add(digest)
    return known


def encoded_rows(rows: Sequence[tuple[str, Row]], tokenizer: PreTrainedTokenizerBase) -> Iterator[Encoded]:
    """Yield the rows as tokens, in their order; those of prompt and answer are tokenized together."""
    pairs = [prompt_and_answer(row) for _, row in rows]
    answered = _answered([pair for pair in pairs if pair is not None], tokenizer)
    for (place, row), pair in zip(rows, pairs, strict=True):
        if pair is not None:
            yield next(answered)
        elif "messages" in row:
            yield encode_chat(tokenizer, row["messages"], place, row.get(TOOLS))
        else:
            ids = [*_without_end(tokenizer(row["text"])["input_ids"], tokenizer), tokenizer.eos_token_id]
            yield ids, bytearray([1]) * len(ids)


def _answered(pairs: Sequence[tuple[str, str]], tokenizer: PreTrainedTokenizerBase) -> Iterator[Encoded]:
    if not pairs:
        return
    prompts = tokenizer([prompt for prompt, _ in pairs])["input_ids"]
    texts = tokenizer([prompt + answer for prompt, answer in pairs])["input_ids"]
    for prompt_ids, text_ids in zip(prompts, texts, strict=True):
        ids = [*_without_end(text_ids, tokenizer), tokenizer.eos_token_id]
        length = _shared_start(_without_end(prompt_ids, tokenizer), ids)
        yield ids, bytearray(length) + bytearray([1]) * (len(ids) - length)


def _without_end(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Some tokenizers append the end token by themselves; it belongs after the answer only."""
    return ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids


def _shared_start(prompt_ids: list[int], ids: list[int]) -> int:
    """Return how many tokens of the prompt stand unchanged at the start of the whole text: a token may span the joint."""
    for position, (mine, whole) in enumerate(zip(prompt_ids, ids, strict=False)):
        if mine != whole:
            return position
    return min(len(prompt_ids), len(ids))
