"""Rows as tokens: a part of them is what a file of that part alone would be."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pat.data.instructions import Instructions
from pat.data.rows import usable_rows
from pat.errors import UserError
from pat.io.artefacts import write_jsonl
from tests.kit.tiny_world import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
words = st.sampled_from(["", " ", "Which", "number comes", "after 3?", "Think. " * 9])
rows = st.lists(
    st.one_of(
        st.fixed_dictionaries({"prompt": words, "completion": words}),
        st.fixed_dictionaries({"instruction": words, "input": words, "output": words}),
        st.fixed_dictionaries({"text": words.map("So: {}".format)}),
    ),
    min_size=1,
    max_size=12,
)


def whole(found: Instructions) -> tuple[Any, ...]:
    """Return all that can be asked of rows."""
    return (
        [found[number] for number in range(len(found))],
        found.counts(),
        found.losses(),
        [found.longer_than(tokens) for tokens in range(0, 90, 7)],
    )


def read_or_refused(ask: Any) -> tuple[Any, ...] | str:
    try:
        return whole(ask())
    except UserError as error:
        return str(error)


@given(rows, st.integers(2, 80), st.data())
def test_a_part_is_what_a_file_of_it_would_be(rows: list[dict[str, str]], max_length: int, data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        path, apart = Path(folder, "rows.jsonl"), Path(folder, "part.jsonl")
        write_jsonl(path, rows)
        try:
            every, usable = Instructions(path, TOKENIZER, max_length), usable_rows(path)
        except UserError:
            return
        asked = {json.dumps(row) for row in data.draw(st.lists(st.sampled_from(usable), min_size=1))}  # what is equal stays together
        numbers = [number for number, row in enumerate(usable) if json.dumps(row) in asked]
        write_jsonl(apart, [usable[number] for number in numbers])
        assert read_or_refused(lambda: every.part(numbers, apart)) == read_or_refused(lambda: Instructions(apart, TOKENIZER, max_length))


def test_the_parts_of_a_part_are_its_own(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"prompt": "a", "completion": str(number)} for number in range(6)])
    every = Instructions(tmp_path / "rows.jsonl", TOKENIZER, 80)
    odd = every.part([1, 3, 5], tmp_path / "odd.jsonl")
    assert whole(odd.part([1, 2], tmp_path / "x.jsonl")) == whole(every.part([3, 5], tmp_path / "x.jsonl"))
    with pytest.raises(UserError, match=r"x\.jsonl: holds no usable row"):
        every.part([], tmp_path / "x.jsonl")
