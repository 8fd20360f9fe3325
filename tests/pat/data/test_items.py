"""Task files: what is written is read back, and what is broken is named."""

from __future__ import annotations

import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from pat.data.items import Item, first_of_each_group, read_items, write_items
from pat.errors import UserError
from tests.kit.tiny_checkpoint import some_items


def test_items_come_back_as_they_were_written(tmp_path: Path) -> None:
    items = some_items(9, groups=("x", "y"))
    assert write_items(tmp_path / "toy.jsonl", items) == 9
    assert read_items(tmp_path / "toy.jsonl") == items


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("answer", 4, "answer=4"),
        ("answer", True, "answer=True"),
        ("answer", "E", "answer=4"),
        ("answer", "b", "answer='b'"),
        ("choices", ["only"], "choices"),
        ("choices", ["a", " "], "choices"),
        ("choices", 7, "choices=7"),
        ("question", "", "question"),
        ("group", None, "group"),
    ],
)
def test_a_broken_item_is_named_with_its_file(tmp_path: Path, field: str, value: Any, named: str) -> None:
    path = tmp_path / "toy.jsonl"
    write_items(path, some_items(2))
    first, second = path.read_text(encoding="utf-8").splitlines()
    path.write_text(first + "\n" + json.dumps(json.loads(second) | {field: value}), encoding="utf-8")
    with pytest.raises(UserError, match="toy-1") as caught:
        read_items(path)
    assert str(path) in str(caught.value)
    assert named in str(caught.value)


def test_items_as_a_user_writes_them_are_called_as_their_file_is(tmp_path: Path) -> None:
    path = tmp_path / "colours.jsonl"
    rows = [
        {"question": "Snow?", "choices": ["white", "green"], "answer": 0},
        {"question": "Grass?", "choices": ["red", "green"], "answer": "B"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert read_items(path) == [
        Item("colours-0", "Snow?", ("white", "green"), 0, "colours"),
        Item("colours-1", "Grass?", ("red", "green"), 1, "colours"),
    ]


@pytest.mark.parametrize("ending", [".json", ".jsonl.gz", ".json.xz", ".parquet"])
def test_a_task_may_be_another_form_of_file_and_compressed(ending: str, tmp_path: Path) -> None:
    rows = [{"question": f"Snow {place}?", "choices": ["white", "green"], "answer": "A"} for place in range(3)]
    path, lines = tmp_path / f"colours{ending}", "".join(json.dumps(row) + "\n" for row in rows)
    if ending == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        text = (lines if "jsonl" in ending else json.dumps(rows)).encode()
        path.write_bytes(gzip.compress(text) if ending.endswith(".gz") else lzma.compress(text) if ending.endswith(".xz") else text)
    assert read_items(path) == [Item(f"colours-{place}", f"Snow {place}?", ("white", "green"), 0, "colours") for place in range(3)]


def test_an_item_without_an_answer_is_named(tmp_path: Path) -> None:
    path = tmp_path / "colours.jsonl"
    line = '{"question": "Snow?", "choices": ["white", "green"]}'
    path.write_text(line + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"colours\.jsonl:1: lacks the field\(s\) answer"):
        read_items(path)
    (tmp_path / "colours.json").write_text(f"[{line}]", encoding="utf-8")
    with pytest.raises(UserError, match=r"colours\.json: record 1: lacks the field answer; it has choices, question"):
        read_items(tmp_path / "colours.json")


def test_two_tasks_in_one_file_and_repeated_ids_are_refused(tmp_path: Path) -> None:
    write_items(tmp_path / "two.jsonl", some_items(2) + some_items(2, task="other"))
    with pytest.raises(UserError, match="other, toy"):
        read_items(tmp_path / "two.jsonl")
    write_items(tmp_path / "twice.jsonl", some_items(2) + some_items(1))
    with pytest.raises(UserError, match="same id"):
        read_items(tmp_path / "twice.jsonl")


def test_a_limit_counts_within_each_group() -> None:
    items = some_items(10, groups=("x", "y"))
    assert [item.id for item in first_of_each_group(items, 2)] == ["toy-0", "toy-1", "toy-5", "toy-6"]
    assert first_of_each_group(items, None) == items


def test_a_limit_of_groups_is_theirs_alone() -> None:
    grouped, plain = some_items(10, groups=("x", "y")), some_items(10)
    assert [item.id for item in first_of_each_group(grouped, 4, 1)] == ["toy-0", "toy-5"]
    assert first_of_each_group(grouped, None, 3) == first_of_each_group(grouped, 3)
    assert len(first_of_each_group(plain, 4, 1)) == 4 and first_of_each_group(plain, None, 1) == plain
