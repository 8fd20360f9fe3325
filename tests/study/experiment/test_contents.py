"""`study validate` reads what stands in data files, as the preparation will: a broken row is told there with its file and row, in seconds."""

from __future__ import annotations

import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from study.experiment.checks import contents
from study.experiment.checks.disk import disk_problems
from study.experiment.file import load_experiment
from study.sources.rows import usable_row
from tests.kit.fuzz_workspace import EXPERIMENT, changed, write_workspace

GOOD = {"instruction": "a", "input": "", "output": "b"}
ITEM: dict[str, Any] = {"question": "q", "choices": ["x", "y"], "answer": 0}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_workspace(tmp_path_factory.mktemp("contents"))


def problems(workspace: Path, field: str, block: dict[str, Any]) -> list[str]:
    raw: dict[str, Any] = changed(EXPERIMENT, field, block)
    return disk_problems(load_experiment({**raw, "root": str(workspace)}, "x.yaml"))


def lines(*rows: Any) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


ROWS: dict[str, tuple[bytes, str]] = {
    "null": (lines(GOOD, GOOD | {"output": None}), "rows.jsonl:2: output is null; must be a text"),
    "a list": (lines(GOOD, GOOD | {"output": ["b"]}), 'rows.jsonl:2: output is ["b"]; must be a text'),
    "a number": (lines(GOOD | {"output": 3}), "rows.jsonl:1: output is 3; must be a text"),
    "NaN": (lines(GOOD, GOOD, GOOD | {"output": float("nan")}), "rows.jsonl:3: output is NaN; must be a text"),
    "a missing column": (lines(GOOD, {"instruction": "a"}), "rows.jsonl:2: lacks the field output or response; it has instruction"),
    "another encoding": (lines(GOOD) + b'{"instruction": "\xe4", "output": "b"}\n', "rows.jsonl:2: is not UTF-8 text"),
    "no JSON": (lines(GOOD) + b"{\n", "rows.jsonl:2: is not valid JSON"),
    "no object": (lines(GOOD, [1]), "rows.jsonl:2: must be a JSON object"),
    "blanks alone": (lines(GOOD | {"output": " "}, GOOD | {"instruction": ""}), "holds no usable row: every one is blank"),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_broken_row_is_told_with_file_and_row(name: str, workspace: Path) -> None:
    content, said = ROWS[name]
    (workspace / "rows.jsonl").write_bytes(content)
    found = problems(workspace, "data.instruct", {"source": "json", "path": "rows.jsonl"})
    assert len(found) == 1 and found[0].startswith("data.instruct.path: ") and said in found[0], found


def test_rows_that_the_preparation_leaves_out_are_no_problem(workspace: Path) -> None:
    (workspace / "rows.jsonl").write_bytes(lines(GOOD, GOOD | {"output": " "}))
    assert problems(workspace, "data.instruct", {"source": "json", "path": "rows.jsonl"}) == []


@pytest.mark.parametrize("pack", [False, True])
def test_a_list_and_a_packed_file_are_read_too(pack: bool, workspace: Path) -> None:
    content = json.dumps([GOOD, GOOD | {"output": 1}]).encode()
    path = workspace / ("rows.json.xz" if pack else "rows.json")
    path.write_bytes(lzma.compress(content) if pack else content)
    found = problems(workspace, "data.instruct", {"source": "json", "path": path.name})
    assert len(found) == 1 and f"{path.name}: record 2: output is 1; must be a text" in found[0]
    if pack:
        path.write_bytes(lzma.compress(content)[:-9])
        assert "cannot be read" in problems(workspace, "data.instruct", {"source": "json", "path": path.name})[0]


def test_a_fraction_that_leaves_nothing_is_told(workspace: Path) -> None:
    (workspace / "rows.jsonl").write_bytes(lines(GOOD, GOOD))
    found = problems(workspace, "data.instruct", {"source": "json", "path": "rows.jsonl", "fraction": 0.1})
    assert len(found) == 1 and "holds 2 row(s), of which the fraction 0.1 leaves none" in found[0]


def test_an_item_without_an_id_is_named_after_its_task_as_when_it_is_prepared(workspace: Path) -> None:
    for first, told in (("task-1", 0), ("own-1", 1)):
        (workspace / "items.jsonl").write_bytes(lines(ITEM | {"id": first}, ITEM))
        assert len(problems(workspace, "data.tasks.own", {"source": "json", "path": "items.jsonl"})) == told


ITEMS: dict[str, tuple[bytes, str]] = {
    "a null question": (lines(ITEM, ITEM | {"question": None}), "items.jsonl:2: question is null; must be a text"),
    "an empty choice": (lines(ITEM | {"choices": ["x", " "]}), "items.jsonl:1: choices=['x', ' ']: must be two or more texts"),
    "an answer beyond the choices": (lines(ITEM, ITEM | {"answer": "C"}), "items.jsonl:2: answer=2: must be a whole number from 0 to 1"),
    "an id twice": (lines(ITEM | {"id": "a"}, ITEM, ITEM | {"id": "a"}), 'items 1 and 3 have the same id "a"'),
    "no choices": (lines(ITEM, {"question": "q"}), "items.jsonl:2: choices must be a list of texts"),
}


@pytest.mark.parametrize("name", ITEMS)
@pytest.mark.parametrize("field", ["data.tasks.own", "data.instruct"])
def test_a_broken_item_is_told_wherever_it_is_read(field: str, name: str, workspace: Path) -> None:
    content, said = ITEMS[name]
    (workspace / "items.jsonl").write_bytes(content)
    block: dict[str, Any] = {"source": "json", "path": "items.jsonl"}
    found = problems(workspace, field, block if field == "data.tasks.own" else {"source": "tasks", "of": {"own": block}})
    assert len(found) == 1 and found[0].startswith(f"{field}.path: ") and said in found[0], found


def test_tables_and_released_prompts_are_read_too(workspace: Path) -> None:
    (workspace / "piqa.csv").write_text("goal,sol1,sol2\na,b,c\n")
    found = problems(workspace, "data.tasks.own", {"source": "hub", "layout": "piqa", "path": "piqa.csv"})
    assert len(found) == 1 and "has no 'label', which the layout 'piqa' reads; it has goal, sol1, sol2" in found[0]
    (workspace / "piqa.csv").write_text("goal,sol1,sol2,label\na,b,c,0\n")
    assert problems(workspace, "data.tasks.own", {"source": "hub", "layout": "piqa", "path": "piqa.csv"}) == []
    (workspace / "released.json").write_text(json.dumps({"0": {"origin_prompt": "Q\nA. x\nB. y\nAnswer:", "gold": "C"}}))
    found = problems(workspace, "data.tasks.own", {"source": "release", "path": "released.json"})
    assert len(found) == 1 and "item 0: gold='C': must be one of A, B" in found[0]


TEXTS: dict[str, tuple[str, bytes, str]] = {
    "blanks alone": ("text", b" \n\t\n", "holds nothing but blanks"),
    "another encoding far below": ("text", b"a " * 2**17 + b"\xff", "cannot be read ('utf-8'"),
    "a null text": ("json", lines({"text": "a"}, {"text": None}), "t.jsonl:2: text is null; must be a text"),
    "neither text nor instruction": ("json", lines({"words": "a"}), "t.jsonl:1: lacks the fields of a row"),
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("field", ["data.text.held", "data.pretrain"])
def test_texts_are_read_too(field: str, name: str, workspace: Path) -> None:
    source, content, said = TEXTS[name]
    path = "t.txt" if source == "text" else "t.jsonl"
    (workspace / path).write_bytes(content)
    found = problems(workspace, field, {"source": source, "path": path})
    assert len(found) == 1 and found[0].startswith(f"{field}.path: ") and said in found[0], found


SPOIL: dict[str, Callable[[list[bytes]], None]] = {
    "in the last line": lambda rows: rows.__setitem__(-1, b'{"instruction": "cut o'),
    "in a stretch": lambda rows: rows.__setitem__(slice(3000, 3300), lines(GOOD | {"output": None}).splitlines(keepends=True) * 300),
}


@pytest.mark.parametrize("where", SPOIL)
def test_beyond_the_bound_some_rows_and_the_last_are_read(where: str, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "MOST_ROWS", 1000)
    monkeypatch.setattr(contents, "SAMPLED_EVERY", 97)
    rows = lines(GOOD).splitlines(keepends=True) * 5000
    (workspace / "rows.jsonl").write_bytes(b"".join(rows))
    block = {"source": "json", "path": "rows.jsonl"}
    assert problems(workspace, "data.instruct", block) == []
    SPOIL[where](rows)
    (workspace / "rows.jsonl").write_bytes(b"".join(rows))
    (found,) = problems(workspace, "data.instruct", block)
    assert f"rows.jsonl:{5000 if where == 'in the last line' else 3007}: " in found


def test_a_large_text_is_checked_to_its_end(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "MOST_CHARACTERS", 2**16)
    (workspace / "t.txt").write_bytes(b"word " * 2**19 + "ü".encode())
    assert problems(workspace, "data.text.held", {"source": "text", "path": "t.txt"}) == []
    (workspace / "t.txt").write_bytes(b"word " * 2**19 + "ü".encode("latin-1"))
    assert "cannot be read ('utf-8'" in problems(workspace, "data.text.held", {"source": "text", "path": "t.txt"})[0]


@pytest.mark.lengthy
def test_of_a_million_rows_a_tenth_is_looked_at(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that it takes seconds: the bound, a row in 997 of those behind it, and the last."""
    looked_at = 0

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal looked_at
        looked_at += 1
        return usable_row(*arguments, **options)

    monkeypatch.setattr(contents, "usable_row", counted)
    row = lines({"instruction": "word " * 20, "input": "", "output": "word " * 40})
    (workspace / "rows.jsonl").write_bytes(row * 1_000_000)
    try:
        assert problems(workspace, "data.instruct", {"source": "json", "path": "rows.jsonl"}) == []
    finally:
        (workspace / "rows.jsonl").unlink()
    assert 100_000 < looked_at < 101_000
