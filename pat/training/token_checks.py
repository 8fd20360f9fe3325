"""Tokens that a trainer is given by others, held against the model's vocabulary before they reach it.

An id beyond it is an IndexError somewhere in the model, and on a GPU an assertion behind which the process can do nothing more there.
Axes: B rows, T tokens, N tokens of rows laid out flat, R rows.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pat.data.vocabulary import first_strange
from pat.models.token_loss import IGNORED_LABEL
from pat.training.learned_places import Collate, are_of_tokens

IDS, LABELS, MASK = "input_ids", "labels", "attention_mask"
ROWS_AT_ONCE = 1000
Flat = tuple[NDArray[Any], NDArray[Any]]
"""What rows hold, (N,), and how much each, (R,)."""


def check_columns(rows: object, vocabulary: int, *, labels: bool) -> None:
    """Raise ValueError where a data set of the datasets library holds ids that are none of the vocabulary's, or masks of other lengths.

    With `labels` the same of these. Columns are read as they lie there, which takes seconds a million rows. Other data sets are left to
    `CheckedBatches`, as is one whose rows are made when they are asked for.
    """
    library = sys.modules.get("datasets")  # whoever has such a data set has imported it
    if library is None or not isinstance(rows, library.Dataset) or rows.format["type"] == "custom":
        return
    start = 0
    for table in rows.with_format("arrow").iter(batch_size=ROWS_AT_ONCE):
        given = {name: _flat(table[name]) for name in (IDS, LABELS, MASK) if name in table.column_names}
        held = {name: found for name, found in given.items() if found is not None}
        for row, problem in (*_strange(held, vocabulary, labels=labels), *_of_other_lengths(held, labels=labels)):
            raise ValueError(f"train_dataset: row {start + row}: {problem}")
        start += table.num_rows


class CheckedBatches:
    """Collates as another collator does. Raises ValueError on ids, or with `labels` on labels, that are none of the vocabulary's."""

    def __init__(self, collate: Collate, vocabulary: int, *, labels: bool) -> None:
        self.collate, self.vocabulary, self.labels = collate, vocabulary, labels

    def __call__(self, rows: Sequence[Any]) -> Any:
        batch = self.collate(rows)
        held = {
            name: (tensor.flatten().numpy(), np.full(len(tensor), tensor.shape[1]))
            for name in (IDS, LABELS)
            if hasattr(batch, "get") and are_of_tokens(tensor := batch.get(name)) and tensor.device.type == "cpu"
        }
        for row, problem in _strange(held, self.vocabulary, labels=self.labels):
            raise ValueError(f"row {row} of a batch: {problem}")
        return batch


def _flat(column: Any) -> Flat | None:
    """Return what a column of lists of whole numbers holds; None of another."""
    import pyarrow
    from pyarrow import compute

    kind = column.type
    lists = (pyarrow.types.is_list, pyarrow.types.is_large_list, pyarrow.types.is_fixed_size_list)
    if not any(is_one(kind) for is_one in lists) or not pyarrow.types.is_integer(kind.value_type):
        return None
    return compute.list_flatten(column).to_numpy(), compute.list_value_length(column).to_numpy()


def _strange(held: Mapping[str, Flat], vocabulary: int, *, labels: bool) -> Iterator[tuple[int, str]]:
    """Yield the number of a row, counted from 0, and which of its tokens is none."""
    meant = f"from 0 to {vocabulary - 1}, the model's vocabulary has {vocabulary} tokens"
    for name, allowed in ((IDS, f"must be {meant}"), *([(LABELS, f"must be {IGNORED_LABEL}, or {meant}")] if labels else [])):
        besides = IGNORED_LABEL if name == LABELS else None
        if name in held and (found := first_strange(*held[name], vocabulary, besides)) is not None:
            row, value = found
            yield row, f"{name} holds {value}; {allowed}"


def _of_other_lengths(held: Mapping[str, Flat], *, labels: bool) -> Iterator[tuple[int, str]]:
    """Yield the number of a row, counted from 0, and what of it is not as long as its ids."""
    for name in (MASK, *([LABELS] if labels else [])):
        if IDS in held and name in held and (other_R := held[name][1] != held[IDS][1]).any():
            row = int(other_R.argmax())
            yield row, f"{name} has {held[name][1][row]} entries, {IDS} {held[IDS][1][row]}; must be as many"
