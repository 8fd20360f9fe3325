"""Rows to learn from as token ids, with what of them is learned: of prompts the answer, of conversations what the assistant says, of texts
all. Knows nothing of training.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from pat.data.chat import encode_chat
from pat.data.rows import NOTHING_SAID, TOOLS, Columns, Row, blank_field, prompt_and_answer, read_rows
from pat.errors import UserError
from pat.models.token_loss import IGNORED_LABEL

ENCODE_BATCH = 1024
Encoded = tuple[list[int], bytearray]
"""Token ids, and for each 1 where it is learned."""


class Instructions(Dataset[dict[str, list[int]]]):
    """Rows of any form (rows.py) as `input_ids` and `labels`, at most `max_length` tokens each; `columns` says what a field is called.

    Token ids lie in one flat array, so that a million rows stay small. Texts longer than `max_length` become several rows. Rows that are
    blank, or whose prompt alone fills `max_length`, teach nothing and are left out; these are counted, and those whose answer is cut, and
    those that are there twice, which stay. Raises UserError where the file is broken or nothing is left.
    """

    def __init__(self, path: str | Path, tokenizer: PreTrainedTokenizerBase, max_length: int, columns: Columns | None = None) -> None:
        path = Path(path)
        self._ids, self._learned = array("i"), bytearray()
        self._starts = [0]
        self.path, self.max_length = path, max_length
        self.read = self.empty = self.left_out = self.cut = self.double = 0
        seen: set[bytes] = set()
        rows = read_rows(path, columns)
        while batch := list(islice(rows, ENCODE_BATCH)):
            self.read += len(batch)
            usable = [(place, row) for place, row in batch if blank_field(row) is None]
            self.empty += len(batch) - len(usable)
            for (_, row), encoded in zip(usable, _encoded(usable, tokenizer), strict=True):
                self._count_double(encoded, seen)
                self._add(encoded, is_text="text" in row)
        if not len(self):
            if self.empty == self.read:
                raise UserError(f"{path}: holds no usable row: {NOTHING_SAID}")
            raise UserError(f"{path}: every prompt is longer than tuning.max_length={max_length} tokens; raise it")

    def _count_double(self, encoded: Encoded, seen: set[bytes]) -> None:
        digest = blake2b(array("i", encoded[0]).tobytes() + bytes(encoded[1]), digest_size=16).digest()
        self.double += digest in seen
        seen.add(digest)

    def _add(self, encoded: Encoded, *, is_text: bool) -> None:
        ids, learned = encoded
        if is_text:
            pieces = [slice(start, start + self.max_length) for start in range(0, len(ids), self.max_length)]
            for piece in pieces:
                if piece.start == 0 or len(ids) - piece.start > 1:  # a token alone has nothing that it is predicted from
                    self._keep(ids[piece], learned[piece])
            return
        kept = slice(0, self.max_length)
        if not any(learned[kept]):
            self.left_out += 1
            return
        self.cut += len(ids) > self.max_length
        self._keep(ids[kept], learned[kept])

    def _keep(self, ids: Sequence[int], learned: bytearray) -> None:
        self._ids.extend(ids)
        self._learned.extend(learned)
        self._starts.append(len(self._ids))

    def __len__(self) -> int:
        return len(self._starts) - 1

    def longer_than(self, tokens: int) -> int:
        """Return how many rows have more tokens than that."""
        return sum(end - start > tokens for start, end in pairwise(self._starts))

    def counts(self) -> dict[str, int]:
        """Return for a record what became of the file's rows."""
        counted = {"empty": self.empty, "left_out": self.left_out, "cut": self.cut, "double": self.double}
        return {"read": self.read, **counted, "kept": len(self), "max_length": self.max_length}

    def losses(self) -> str | None:
        """Return in one line how many rows are blank, too long, cut or double; None where none is."""
        by_length = [f"{self.cut} lose the end of their answer"] if self.cut else []
        by_length += [f"{self.left_out} are left out, their prompt alone fills it"] if self.left_out else []
        parts = [f"{' and '.join(by_length)}: tuning.max_length={self.max_length} tokens are too few for them"] if by_length else []
        parts += [f"{self.empty} are left out, they are blank or without an answer"] if self.empty else []
        parts += [f"{self.double} are there a second time and stay"] if self.double else []
        return f"{self.path}: of {self.read} rows, {'; '.join(parts)}" if parts else None

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        row = slice(self._starts[index], self._starts[index + 1])
        ids = list(self._ids[row])
        labels = [token if is_learned else IGNORED_LABEL for token, is_learned in zip(ids, self._learned[row], strict=True)]
        return {"input_ids": ids, "labels": labels}


def _encoded(rows: Sequence[tuple[str, Row]], tokenizer: PreTrainedTokenizerBase) -> Iterator[Encoded]:
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


class PadToLongest:
    """Collates rows into tensors, padded on the tokenizer's side to the longest row of the batch.

    A batch without padding has no attention mask, for its values would be read back to find that out. On a GPU neither has one
    that is padded on the right: no real token of a causal model looks there, and attention without a mask is the faster kernel.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, device: str = "cpu") -> None:
        self.tokenizer = tokenizer
        self.masked = device != "cuda" or tokenizer.padding_side == "left"

    def __call__(self, rows: list[Mapping[str, list[int]]]) -> dict[str, Any]:
        batch = self.tokenizer.pad({"input_ids": [row["input_ids"] for row in rows]}, return_tensors="pt")
        longest = batch["input_ids"].shape[1]
        if not self.masked or bool(batch["attention_mask"].all()):
            del batch["attention_mask"]
        labels = [_padded(row["labels"], longest, self.tokenizer.padding_side) for row in rows]
        return {**batch, "labels": batch["input_ids"].new_tensor(labels)}


def _padded(labels: list[int], length: int, side: str) -> list[int]:
    filler = [IGNORED_LABEL] * (length - len(labels))
    return filler + labels if side == "left" else labels + filler
