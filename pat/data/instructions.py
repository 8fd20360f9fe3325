"""Rows to learn from as token ids, with what of them is learned: of prompts the answer, of conversations what the assistant says, of texts
all. Knows nothing of training.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from copy import copy
from enum import IntFlag
from hashlib import blake2b
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from pat.data.encoding import Encoded, encoded_rows
from pat.data.rows import NOTHING_SAID, Columns, blank_field, read_rows
from pat.errors import UserError
from pat.models.token_loss import IGNORED_LABEL

ENCODE_BATCH = 1024


class Fate(IntFlag):
    """What became of a row beside that it is kept."""

    LEFT_OUT = 1
    CUT = 2
    DOUBLE = 4


class Instructions(Dataset[dict[str, list[int]]]):
    """Rows of any form (rows.py) as `input_ids` and `labels`, at most `max_length` tokens each; `columns` says what a field is called.

    Token ids lie in one flat array, so that a million rows stay small. Texts longer than `max_length` become several rows. Rows that are
    blank, or whose prompt alone fills `max_length`, teach nothing and are left out; these are counted, and those whose answer is cut, and
    those that are there twice, which stay. Raises UserError where the file is broken or nothing is left.
    """

    def __init__(self, path: str | Path, tokenizer: PreTrainedTokenizerBase, max_length: int, columns: Columns | None = None) -> None:
        path = Path(path)
        self._ids, self._learned = array("i"), bytearray()
        self._starts, self._ends, self._sources = array("q"), array("q"), array("q")
        self._fates = bytearray()
        self.path, self.max_length = path, max_length
        self._read = 0
        seen: set[bytes] = set()
        rows = read_rows(path, columns)
        while batch := list(islice(rows, ENCODE_BATCH)):
            self._read += len(batch)
            usable = [(place, row) for place, row in batch if blank_field(row) is None]
            for (_, row), encoded in zip(usable, encoded_rows(usable, tokenizer), strict=True):
                fate = self._add(encoded, is_text="text" in row)
                self._fates.append(fate | (Fate.DOUBLE if _seen(encoded, seen) else 0))
        self._check_any()

    def _check_any(self) -> None:
        if not len(self):
            if not self._fates:
                raise UserError(f"{self.path}: holds no usable row: {NOTHING_SAID}")
            raise UserError(f"{self.path}: every prompt is longer than tuning.max_length={self.max_length} tokens; raise it")

    def _add(self, encoded: Encoded, *, is_text: bool) -> int:
        ids, learned = encoded
        if is_text:
            pieces = [slice(start, start + self.max_length) for start in range(0, len(ids), self.max_length)]
            for piece in pieces:
                if piece.start == 0 or len(ids) - piece.start > 1:  # a token alone has nothing that it is predicted from
                    self._keep(ids[piece], learned[piece])
            return 0
        kept = slice(0, self.max_length)
        if not any(learned[kept]):
            return Fate.LEFT_OUT
        self._keep(ids[kept], learned[kept])
        return Fate.CUT if len(ids) > self.max_length else 0

    def _keep(self, ids: Sequence[int], learned: bytearray) -> None:
        self._starts.append(len(self._ids))
        self._ids.extend(ids)
        self._learned.extend(learned)
        self._ends.append(len(self._ids))
        self._sources.append(len(self._fates))

    def part(self, rows: Sequence[int], path: str | Path) -> Instructions:
        """Return what a file at `path` would be that holds these of the rows that are not blank (`usable_rows`), in their order.

        Nothing is encoded again. Raises UserError where nothing of them can be learned.
        """
        part, places = copy(self), {row: place for place, row in enumerate(rows)}
        pieces = [piece for piece, row in enumerate(self._sources) if row in places]
        part.path, part._read = Path(path), len(rows)
        part._starts = array("q", (self._starts[piece] for piece in pieces))
        part._ends = array("q", (self._ends[piece] for piece in pieces))
        part._sources = array("q", (places[self._sources[piece]] for piece in pieces))
        part._fates = bytearray(self._fates[row] for row in rows)
        part._check_any()
        return part

    def __len__(self) -> int:
        return len(self._starts)

    def longer_than(self, tokens: int) -> int:
        """Return how many rows have more tokens than that."""
        return sum(end - start > tokens for start, end in zip(self._starts, self._ends, strict=True))

    def counts(self) -> dict[str, int]:
        """Return for a record what became of the file's rows."""
        kinds = Counter(self._fates)
        met = {str(fate.name).lower(): sum(count for found, count in kinds.items() if found & fate) for fate in Fate}
        return {"read": self._read, "empty": self._read - len(self._fates), **met, "kept": len(self), "max_length": self.max_length}

    def losses(self) -> str | None:
        """Return in one line how many rows are blank, too long, cut or double; None where none is."""
        counts = self.counts()
        cut, left_out, empty, double = (counts[name] for name in ("cut", "left_out", "empty", "double"))
        by_length = [f"{cut} lose the end of their answer"] if cut else []
        by_length += [f"{left_out} are left out, their prompt alone fills it"] if left_out else []
        parts = [f"{' and '.join(by_length)}: tuning.max_length={self.max_length} tokens are too few for them"] if by_length else []
        parts += [f"{empty} are left out, they are blank or without an answer"] if empty else []
        parts += [f"{double} are there a second time and stay"] if double else []
        return f"{self.path}: of {counts['read']} rows, {'; '.join(parts)}" if parts else None

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        row = slice(self._starts[index], self._ends[index])
        ids = list(self._ids[row])
        labels = [token if is_learned else IGNORED_LABEL for token, is_learned in zip(ids, self._learned[row], strict=True)]
        return {"input_ids": ids, "labels": labels}


def _seen(encoded: Encoded, seen: set[bytes]) -> bool:
    """Return whether a row like this was among those seen; from now on it is."""
    digest = blake2b(array("i", encoded[0]).tobytes() + bytes(encoded[1]), digest_size=16).digest()
    known = digest in seen
    seen.add(digest)
    return known


class PadToLongest:
    """Collates rows into tensors, padded on the tokenizer's side to the longest row of the batch.

    A batch without padding has no attention mask, for its values would be read back to find that out. On a GPU neither has one
    that is padded on the right: no real token of a causal model looks there, and attention without a mask is the faster kernel.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, device: str = "cpu") -> None:
        self.tokenizer = tokenizer
        self.masked = device != "cuda" or tokenizer.padding_side == "left"

    def __call__(self, rows: list[Mapping[str, list[int]]]) -> dict[str, Any]:
        ids = _tensors([row["input_ids"] for row in rows])
        batch = {"input_ids": self._padded(ids, self._filler())}
        if self.masked and len({len(row) for row in ids}) > 1:
            batch["attention_mask"] = self._padded([torch.ones_like(row) for row in ids], 0)
        return batch | {"labels": self._padded(_tensors([row["labels"] for row in rows]), IGNORED_LABEL)}

    def _padded(self, rows: Sequence[Tensor], filler: int) -> Tensor:
        return pad_sequence(list(rows), batch_first=True, padding_value=filler, padding_side=self.tokenizer.padding_side)

    def _filler(self) -> int:
        filler = self.tokenizer.pad_token_id
        if filler is None:
            raise ValueError("the tokenizer has no padding token: set one, as tokenizer.pad_token = tokenizer.eos_token")
        return int(filler)


def _tensors(rows: Sequence[Sequence[int]]) -> Sequence[Tensor]:
    """Return rows of numbers as tensors, all by way of one array: a tensor of each list takes ten times as long."""
    flat = torch.frombuffer(array("q", chain.from_iterable(rows)), dtype=torch.int64)
    parts: Sequence[Tensor] = flat.split([len(row) for row in rows])
    return parts
