"""Instruction sets and texts out of their sources."""

from __future__ import annotations

import json
import lzma
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pat.data.files import Record
from pat.data.prompts import ANSWER_JOINT, alpaca_prompt, first_capital_prompt
from pat.errors import UserError
from pat.io.artefacts import read_jsonl
from study.data import instruct as prepare_instruct
from study.data import text as prepare_text
from tests.kit.commands import outcome
from tests.kit.shared_data import shared_data

ROWS: list[dict[str, Any]] = [
    {"instruction": "Add.", "input": "1 2", "output": "3"},
    {"instruction": "Greet.", "output": "Hello"},
    {"instruction": "Shout.", "input": None, "response": "HEY"},
]
READ = [
    {"instruction": "Add.", "input": "1 2", "output": "3"},
    {"instruction": "Greet.", "input": "", "output": "Hello"},
    {"instruction": "Shout.", "input": "", "output": "HEY"},
]


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    """Write rows in the form that the path's ending says, and return the source block."""
    text = json.dumps(rows) if ".json" in path.suffixes else "".join(json.dumps(row) + "\n" for row in rows)
    if path.suffix == ".xz":
        path.write_bytes(lzma.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return json.dumps({"source": "json", "path": str(path)})


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.jsonl.xz", "a.json.xz"])
def test_instructions_come_out_alike_whatever_the_file(tmp_path: Path, name: str) -> None:
    prepare_instruct.prepare(written(tmp_path / name, ROWS), 0, tmp_path / "out.jsonl")
    assert read_jsonl(tmp_path / "out.jsonl", ["instruction", "input", "output"]) == READ


def test_items_of_tasks_become_the_papers_question_and_its_letter(tmp_path: Path) -> None:
    """What is tuned on is what the generated scoring asks, so that the scored prompt and the tuned one are one text."""
    items: list[dict[str, Any]] = [
        {"question": "2 + 2?", "choices": ["3", "4"], "answer": "B"},
        {"question": "1 + 1?", "choices": ["2", "3", "4"], "answer": 0},
    ]
    block = {"source": "tasks", "of": {"sums": json.loads(written(tmp_path / "a.jsonl", items))}}
    prepare_instruct.prepare(json.dumps(block), 0, tmp_path / "out.jsonl")
    rows = read_jsonl(tmp_path / "out.jsonl", ["instruction", "input", "output"])
    assert [row["output"] for row in rows] == ["B", "A"]
    asked = [first_capital_prompt(item["question"], item["choices"]) for item in items]
    assert [alpaca_prompt(row["instruction"], row["input"]) for row in rows] == asked


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({"instruction": 3, "output": "x"}, "instruction is 3"),
        ({"instruction": "x"}, "output or response"),
        ({"output": "x"}, "lacks the fields of a row"),
    ],
)
def test_a_broken_row_is_named_with_its_line(tmp_path: Path, row: dict[str, Any], named: str) -> None:
    block = written(tmp_path / "a.jsonl", [ROWS[0], row])
    with pytest.raises(UserError, match=named) as caught:
        prepare_instruct.prepare(block, 0, tmp_path / "out.jsonl")
    assert f"{tmp_path / 'a.jsonl'}:2" in str(caught.value)


@pytest.mark.parametrize("content", ["[1]", '{"a": 1}', "[", "\xff"])
def test_a_file_that_is_no_list_of_objects_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=r"a\.json"):
        prepare_instruct.prepare(json.dumps({"source": "json", "path": str(tmp_path / "a.json")}), 0, tmp_path / "out.jsonl")


def test_a_truncated_archive_and_a_missing_file_are_named(tmp_path: Path) -> None:
    block = written(tmp_path / "a.jsonl.xz", ROWS * 500)
    whole = (tmp_path / "a.jsonl.xz").read_bytes()
    (tmp_path / "a.jsonl.xz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"a\.jsonl\.xz: cannot be read"):
        prepare_instruct.prepare(block, 0, tmp_path / "out.jsonl")
    (tmp_path / "a.jsonl.xz").unlink()
    with pytest.raises(UserError, match=r"a\.jsonl\.xz: no such file"):
        prepare_instruct.prepare(block, 0, tmp_path / "out.jsonl")


def test_rows_with_nothing_to_learn_are_left_out_and_counted(tmp_path: Path) -> None:
    said = prepare_instruct.prepare(written(tmp_path / "a.jsonl", [*ROWS, {"instruction": "x", "output": " "}]), 0, tmp_path / "out.jsonl")
    assert "3 rows; left out 1" in said


@pytest.mark.parametrize("kind", ["hub", "json"])
def test_a_sets_fraction_is_drawn_with_the_seed(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"instruction": f"i{number}", "response": "r"} for number in range(100)]

    def from_hub(*_: object) -> Iterator[Record]:
        return (Record(f"row {number}", row) for number, row in enumerate(rows))

    monkeypatch.setattr(prepare_instruct, "hub_records", from_hub)
    source = {"source": "hub", "id": "some/set"} if kind == "hub" else json.loads(written(tmp_path / "a.jsonl", rows))
    block = json.dumps({**source, "fraction": 0.25})
    drawn = []
    for seed in (1, 1, 2):
        prepare_instruct.prepare(block, seed, tmp_path / "out.jsonl")
        drawn.append([row["instruction"] for row in read_jsonl(tmp_path / "out.jsonl", ["output"])])
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(drawn[0]) == 25
    assert drawn[0] == sorted(drawn[0], key=lambda name: int(name[1:]))


def test_documents_are_texts_or_filled_templates(tmp_path: Path) -> None:
    block = written(tmp_path / "a.jsonl", [{"text": "One.\nTwo."}, ROWS[0], ROWS[1], {"text": "  "}])
    prepare_text.prepare(block, 0, tmp_path / "out.jsonl")
    assert [row["text"] for row in read_jsonl(tmp_path / "out.jsonl", ["text"])] == [
        "One.\nTwo.",
        alpaca_prompt("Add.", "1 2") + ANSWER_JOINT + "3",
        alpaca_prompt("Greet.") + ANSWER_JOINT + "Hello",
    ]


@pytest.mark.parametrize("packed", [False, True])
def test_a_plain_text_file_is_one_document(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / ("a.txt.xz" if packed else "a.txt")
    content = "First line.\n\nÄnd another.\n".encode()
    path.write_bytes(lzma.compress(content) if packed else content)
    prepare_text.prepare(json.dumps({"source": "text", "path": str(path)}), 0, tmp_path / "out.jsonl")
    assert read_jsonl(tmp_path / "out.jsonl", ["text"]) == [{"text": content.decode()}]


def test_records_without_text_and_blank_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.jsonl:1: lacks the fields of a row"):
        prepare_text.prepare(written(tmp_path / "a.jsonl", [{"words": "x"}]), 0, tmp_path / "out.jsonl")
    (tmp_path / "a.txt").write_text(" \n", encoding="utf-8")
    with pytest.raises(UserError, match="nothing but blanks"):
        prepare_text.prepare(json.dumps({"source": "text", "path": str(tmp_path / "a.txt")}), 0, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(("part", "rows"), [("alpaca_gpt4_999.json", 999), ("alpaca_eval_heldout.jsonl.xz", 4013)])
def test_real_instruction_sets_are_read_whole(tmp_path: Path, part: str, rows: int) -> None:
    block = json.dumps({"source": "json", "path": str(shared_data(f"instruct/{part}"))})
    prepare_instruct.prepare(block, 0, tmp_path / "out.jsonl")
    assert len(read_jsonl(tmp_path / "out.jsonl", ["instruction", "input", "output"])) == rows


@pytest.mark.parametrize("script", ["instruct", "text"])
def test_both_scripts_take_the_same_options_and_end_in_one_line(script: str, tmp_path: Path) -> None:
    block, out = written(tmp_path / "a.json", ROWS), tmp_path / "out.jsonl"

    def run(source: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "study", f"prepare-{script}", "--source", source, "--seed", "1", "--out", str(out)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = run(block)
    assert done.returncode == 0 and out.is_file() and done.stdout.startswith(f"{out}: ")
    refused = run("{}")
    assert refused.returncode == 1 and refused.stderr.startswith("error: ") and "Traceback" not in refused.stderr


@pytest.mark.parametrize("script", ["instruct", "text", "task"])
@pytest.mark.parametrize("force", [[], ["--force"]])
def test_no_set_is_written_over_what_it_is_made_of(
    script: str, force: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the block of the source is made of; not even by force, and by no other name of the same file."""
    file = tmp_path / "a.jsonl"
    block = {"source": "json", "path": str(file)}
    file.write_text('{"text": "a", "question": "q", "choices": ["x", "y"], "answer": 0, "instruction": "a", "output": "b"}\n')
    (tmp_path / "link.jsonl").hardlink_to(file)
    before = file.read_bytes()
    sources = [block, {"source": "tasks", "of": {"own": block}}] if script == "instruct" else [block]
    for source in sources:
        for out in (file, tmp_path / "link.jsonl"):
            task = ["--task", "own"] if script == "task" else []
            code, said = outcome([f"prepare-{script}", *task, "--source", json.dumps(source), "--out", str(out), *force], capsys)
            assert code == 1 and f"--out {out}: is the same place as --source {file}" in said
    assert file.read_bytes() == before
