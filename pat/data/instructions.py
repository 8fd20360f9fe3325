"""An instruction set as token ids: Alpaca prompt, answer, end token; only the answer is learned. Knows nothing of training."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from pat.data.prompts import ANSWER_JOINT, alpaca_prompt
from pat.data.rows import read_instructions
from pat.errors import UserError
from pat.models.token_loss import IGNORED_LABEL

ENCODE_BATCH = 1024


class Instructions(Dataset[dict[str, list[int]]]):
    """Rows of `instruction`, `input`, `output` as `input_ids` and `labels`, at most `max_length` tokens each.

    Token ids lie in one flat array, so that a million rows stay small. Rows whose prompt alone fills `max_length` teach nothing and
    are left out; these are counted, and those whose answer is cut. Raises UserError where the file is broken or nothing is left.
    """

    def __init__(self, path: str | Path, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        path = Path(path)
        self._ids = array("i")
        self._starts = [0]
        self._prompt_lengths: list[int] = []
        self.path, self.max_length = path, max_length
        self.cut = 0
        rows = read_instructions(path)
        self.read = len(rows)
        for first in range(0, len(rows), ENCODE_BATCH):
            self._add(rows[first : first + ENCODE_BATCH], tokenizer, max_length)
        if not len(self):
            raise UserError(f"{path}: every prompt is longer than tuning.max_length={max_length} tokens; raise it")

    def _add(self, rows: list[dict[str, str]], tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        prompts = [alpaca_prompt(row["instruction"], row["input"]) for row in rows]
        texts = [prompt + ANSWER_JOINT + row["output"] for prompt, row in zip(prompts, rows, strict=True)]
        encoded_prompts, encoded_texts = tokenizer(prompts)["input_ids"], tokenizer(texts)["input_ids"]
        for prompt_ids, text_ids in zip(encoded_prompts, encoded_texts, strict=True):
            whole = [*_without_end(text_ids, tokenizer), tokenizer.eos_token_id]
            ids = whole[:max_length]
            prompt_length = _shared_start(_without_end(prompt_ids, tokenizer), ids)
            if prompt_length < len(ids):
                self.cut += len(ids) < len(whole)
                self._ids.extend(ids)
                self._starts.append(len(self._ids))
                self._prompt_lengths.append(prompt_length)

    def __len__(self) -> int:
        return len(self._prompt_lengths)

    def longer_than(self, tokens: int) -> int:
        """Return how many rows have more tokens than that."""
        return sum(end - start > tokens for start, end in pairwise(self._starts))

    def counts(self) -> dict[str, int]:
        """Return for a record what became of the file's rows."""
        return {"read": self.read, "left_out": self.read - len(self), "cut": self.cut, "max_length": self.max_length}

    def losses_by_length(self) -> str | None:
        """Return in one line how many rows `max_length` has taken something from; None where it has from none."""
        left_out = self.read - len(self)
        parts = [f"{self.cut} lose the end of their answer"] if self.cut else []
        parts += [f"{left_out} are left out, their prompt alone fills it"] if left_out else []
        if not parts:
            return None
        return f"{self.path}: of {self.read} rows, {' and '.join(parts)}: tuning.max_length={self.max_length} tokens are too few for them"

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        ids = list(self._ids[self._starts[index] : self._starts[index + 1]])
        prompt_length = self._prompt_lengths[index]
        return {"input_ids": ids, "labels": [IGNORED_LABEL] * prompt_length + ids[prompt_length:]}


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
