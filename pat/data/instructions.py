"""Rows to learn from as the data set that a trainer takes, and their batches. How a row becomes tokens is encoding.py's. Knows nothing of
training.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from pat.data.encoding import EncodedRows, Fate, encoded_in_batches, gathered
from pat.data.rows import NOTHING_SAID, Columns
from pat.errors import UserError
from pat.models.token_loss import IGNORED_LABEL


class Instructions(Dataset[dict[str, list[int]]]):
    """Rows of any form (rows.py) as `input_ids` and `labels`, at most `max_length` tokens each; `columns` says what a field is called.

    Texts longer than `max_length` become several rows. Rows that are blank, or whose prompt alone fills `max_length`, teach nothing and are
    left out; these are counted, and those whose answer is cut, and those that are there twice, which stay. Raises UserError where the file
    is broken or nothing is left.
    """

    def __init__(self, path: str | Path, tokenizer: PreTrainedTokenizerBase, max_length: int, columns: Columns | None = None) -> None:
        self._hold(Path(path), max_length, gathered(encoded_in_batches(Path(path), tokenizer, max_length, columns)))

    @classmethod
    def of(cls, path: Path, max_length: int, encoded: EncodedRows) -> Self:
        """Return the rows of a file that are encoded already. Raises UserError where nothing of them can be learned."""
        rows = cls.__new__(cls)
        rows._hold(path, max_length, encoded)
        return rows

    def _hold(self, path: Path, max_length: int, encoded: EncodedRows, starts_N: NDArray[np.int64] | None = None) -> None:
        self.path, self.max_length, self._encoded = path, max_length, encoded
        self._starts_N = np.cumsum(encoded.lengths_N) - encoded.lengths_N if starts_N is None else starts_N
        if not len(self):
            if not len(encoded.fates_R):
                raise UserError(f"{path}: holds no usable row: {NOTHING_SAID}")
            raise UserError(f"{path}: every prompt is longer than max_length={max_length} tokens; raise it")

    def part(self, rows: Sequence[int], path: str | Path) -> Self:
        """Return what a file at `path` would be that holds these of the rows that are not blank (`usable_rows`), in their order.

        Nothing is encoded again. Raises UserError where nothing of them can be learned.
        """
        whole, rows_P = self._encoded, np.asarray(rows, np.int64)
        places_R = np.full(len(whole.fates_R), -1)
        places_R[rows_P] = np.arange(len(rows_P))
        sources_N = places_R[whole.sources_N]
        inside_N = sources_N >= 0
        chosen = EncodedRows(
            whole.ids_T, whole.learned_T, whole.lengths_N[inside_N], sources_N[inside_N], whole.fates_R[rows_P], read=len(rows_P)
        )
        part = type(self).__new__(type(self))
        part._hold(Path(path), self.max_length, chosen, self._starts_N[inside_N])
        return part

    def __len__(self) -> int:
        return len(self._encoded.lengths_N)

    def longer_than(self, tokens: int) -> int:
        """Return how many rows have more tokens than that."""
        return int((self._encoded.lengths_N > tokens).sum())

    def counts(self) -> dict[str, int]:
        """Return for a record what became of the file's rows."""
        read, fates_R = self._encoded.read, self._encoded.fates_R
        met = {str(fate.name).lower(): int(np.count_nonzero(fates_R & fate.value)) for fate in Fate}
        return {"read": read, "empty": read - len(fates_R), **met, "kept": len(self), "max_length": self.max_length}

    def losses(self) -> str | None:
        """Return in one line how many rows are blank, too long, cut or double; None where none is."""
        counts = self.counts()
        cut, left_out, empty, double = (counts[name] for name in ("cut", "left_out", "empty", "double"))
        by_length = [f"{cut} lose the end of their answer"] if cut else []
        by_length += [f"{left_out} are left out, their prompt alone fills it"] if left_out else []
        parts = [f"{' and '.join(by_length)}: max_length={self.max_length} tokens are too few for them"] if by_length else []
        parts += [f"{empty} are left out, they are blank or without an answer"] if empty else []
        parts += [f"{double} are there a second time and stay"] if double else []
        return f"{self.path}: of {counts['read']} rows, {'; '.join(parts)}" if parts else None

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        start = self._starts_N[index]
        row = slice(start, start + self._encoded.lengths_N[index])
        ids = self._encoded.ids_T[row]
        return {"input_ids": ids.tolist(), "labels": np.where(self._encoded.learned_T[row], ids, IGNORED_LABEL).tolist()}


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
