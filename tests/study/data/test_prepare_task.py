"""Items out of the release's prompts, the hub's tables and local files."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any, get_args

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from pat.data.items import read_items
from pat.errors import UserError
from study.data.task import main, prepare
from study.sources.hub_layouts import LAYOUTS
from study.sources.kinds import TaskLayout
from study.sources.release_prompts import CLOSING, release_items, take_apart
from tests.kit.shared_data import shared_data

RELEASED_ITEMS = {
    "ARC-c": 295, "ARC-e": 567, "BoolQ": 3270, "COPA": 100, "RTE": 277, "WSC": 104, "WiC": 638,
    "openbookqa_fact": 500, "piqa": 1838, "siqa": 1954, "winogrande": 1267,
}  # fmt: skip
LINE = st.text(st.characters(exclude_characters="\n.", exclude_categories=["Cs"]), min_size=1).filter(str.strip)


def put_together(question: str, choices: Sequence[str]) -> str:
    """Return the prompt that `take_apart` takes apart."""
    return "\n".join([question, *(f"{letter}. {choice}" for letter, choice in zip(ascii_uppercase, choices, strict=False))]) + CLOSING


@given(st.lists(LINE, min_size=1, max_size=3).map("\n".join), st.lists(LINE, min_size=2, max_size=6))
def test_taking_apart_undoes_putting_together(question: str, choices: list[str]) -> None:
    assert take_apart(put_together(question, choices)) == (question, choices)


@pytest.mark.parametrize(
    ("prompt", "question", "choices"),
    [
        ("Q\nA. one\nB. two\nAnswer:", "Q", ["one", "two"]),
        ("J. K. Rowling\nA. B. Yehoshua\nA. Yes\nB. No\nAnswer:", "J. K. Rowling\nA. B. Yehoshua", ["Yes", "No"]),
        ("Q\nA. plan B. or C.\nB. D. H.\nC. E\nAnswer:", "Q", ["plan B. or C.", "D. H.", "E"]),
        ("Q\nA. first line\nsecond line\nB. other\nC. more\nlines\nAnswer:", "Q", ["first line\nsecond line", "other", "more\nlines"]),
        ("Q\nA. trailing \nB.  leading\nAnswer:", "Q", ["trailing ", " leading"]),
    ],
)
def test_prompts_that_could_be_misread(prompt: str, question: str, choices: list[str]) -> None:
    assert take_apart(prompt) == (question, choices)
    assert put_together(question, choices) == prompt


@pytest.mark.parametrize(
    "prompt", ["Q\nA. one\nB. two", "Q\nAnswer:", "Q\nA. one\nAnswer:", "A. one\nB. two\nAnswer:", "Q\nB. x\nC. y\nAnswer:"]
)
def test_prompts_without_lettered_choices_are_refused(prompt: str) -> None:
    with pytest.raises(ValueError, match="the prompt"):
        take_apart(prompt)


@pytest.mark.parametrize("name", sorted(RELEASED_ITEMS))
def test_every_item_of_the_real_files_is_read_and_can_be_put_together_again(name: str) -> None:
    path = shared_data(f"zero_shot/{name}.json")
    entries = json.loads(path.read_text(encoding="utf-8"))
    items = list(release_items(path, name))
    assert len(items) == len(entries) == RELEASED_ITEMS[name]
    assert len({len(item.choices) for item in items}) == 1
    for item, entry in zip(items, entries.values(), strict=True):
        assert put_together(*take_apart(entry["origin_prompt"])) == entry["origin_prompt"]
        assert re.search(rf"\n{entry['gold']}\. +{re.escape(item.choices[item.answer])}", entry["origin_prompt"])


def released(folder: Path, name: str, **entry: object) -> Path:
    path = folder / f"{name}.json"
    path.write_text(
        json.dumps({"7": {"origin_prompt": "Q\nA. x\nB. y\nAnswer:", "gold": "B", "prediction": "A"} | entry}), encoding="utf-8"
    )
    return path


def source(**block: object) -> str:
    return json.dumps(block)


def test_a_folder_of_release_files_is_one_task_with_a_group_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "mmlu"
    folder.mkdir()
    released(folder, "law")
    released(folder, "art")
    said = prepare("mmlu", source(source="release", path=str(folder)), tmp_path / "out.jsonl")
    items = read_items(tmp_path / "out.jsonl")
    assert [(item.id, item.group, item.answer) for item in items] == [("mmlu-art-7", "art", 1), ("mmlu-law-7", "law", 1)]
    assert "2 items in 2 groups" in said


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ({"gold": "C"}, "gold='C'"),
        ({"gold": 1}, "gold"),
        ({"origin_prompt": "no choices\nAnswer:"}, "prompt"),
        ({"origin_prompt": None}, "origin_prompt"),
    ],
)
def test_a_broken_release_item_is_named_with_its_file(tmp_path: Path, entry: dict[str, Any], named: str) -> None:
    path = released(tmp_path, "x", **entry)
    with pytest.raises(UserError, match=named) as caught:
        list(release_items(path, "x"))
    assert f"{path}: item 7" in str(caught.value)


ROWS: dict[str, tuple[dict[str, Any], tuple[str, ...], str, str]] = {
    # layout: a row in the data set's columns, its choices, the right one, and a part of its question
    "arc_challenge": (
        {"id": "x", "question": "Why?", "choices": {"text": ["p", "q", "r"], "label": ["1", "2", "3"]}, "answerKey": "3"},
        ("p", "q", "r"),
        "r",
        "Question: Why?",
    ),
    "arc_easy": (
        {"id": "x", "question": "Why?", "choices": {"text": ["p", "q"], "label": ["A", "B"]}, "answerKey": "A"},
        ("p", "q"),
        "p",
        "Why?",
    ),
    "boolq": ({"question": "is it", "passage": "It is.", "idx": 0, "label": 1}, ("Yes", "No"), "Yes", "It is.\nQuestion: is it"),
    "copa": (
        {"premise": "It rained.", "choice1": "Wet.", "choice2": "Dry.", "question": "effect", "idx": 0, "label": 0},
        ("Wet.", "Dry."),
        "Wet.",
        "came of",
    ),
    "hellaswag": (
        {
            "ind": 1,
            "activity_label": "Cooking",
            "ctx_a": "He [title] stirs.",
            "ctx_b": "then he",
            "ctx": "",
            "endings": ["[step] eats.", "runs", "a", "b"],
            "source_id": "",
            "split": "val",
            "split_type": "",
            "label": "1",
        },
        ("eats.", "runs", "a", "b"),
        "runs",
        "Cooking: He stirs. Then he",
    ),
    "mmlu": ({"question": "2+2?", "subject": "algebra", "choices": ["1", "2", "3", "4"], "answer": 3}, ("1", "2", "3", "4"), "4", "2+2?"),
    "multirc": (
        {"paragraph": "P.", "question": "Who?", "answer": "Ann", "idx": {"paragraph": 0, "question": 0, "answer": 0}, "label": 0},
        ("Yes", "No"),
        "No",
        "Ann",
    ),
    "openbookqa": (
        {"id": "x", "question_stem": "The sun is", "choices": {"text": ["hot", "cold"], "label": ["A", "B"]}, "answerKey": "B"},
        ("hot", "cold"),
        "cold",
        "sun",
    ),
    "piqa": (
        {"goal": "boil eggs", "sol1": "use water ", "sol2": "use sand", "label": 0},
        ("use water", "use sand"),
        "use water",
        "boil eggs",
    ),
    "rte": ({"premise": "It rains.", "hypothesis": "It is wet.", "idx": 0, "label": 0}, ("Yes", "No"), "Yes", "Statement: It is wet."),
    "siqa": (
        {"context": "Al fell.", "question": "How is Al?", "answerA": "hurt", "answerB": "fine", "answerC": "rich", "label": "1"},
        ("hurt", "fine", "rich"),
        "hurt",
        "Al fell.\nQuestion: How is Al?",
    ),
    "wic": (
        {
            "word": "bank",
            "sentence1": "River bank.",
            "sentence2": "Open a bank.",
            "start1": 0,
            "start2": 0,
            "end1": 0,
            "end2": 0,
            "idx": 0,
            "label": 0,
        },
        ("Yes", "No"),
        "No",
        "'bank'",
    ),
    "winogrande": (
        {"sentence": "Ann met Eve as _ was lost.", "option1": "Ann", "option2": "Eve", "answer": "2"},
        ("Ann", "Eve"),
        "Eve",
        "_ was lost",
    ),
    "wsc": (
        {"text": "Bo saw Al and he ran.", "span1_index": 2, "span2_index": 4, "span1_text": "Al", "span2_text": "he", "idx": 0, "label": 1},
        ("Yes", "No"),
        "Yes",
        "and * he * ran.",
    ),
}


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_a_row_of_each_hub_layout_becomes_an_item(layout: str) -> None:
    row, choices, right, part = ROWS[layout]
    item = LAYOUTS[layout].read(row).item("task", "task-0")
    assert item.choices == choices
    assert item.choices[item.answer] == right
    assert part in item.question
    assert item.group == ("algebra" if layout == "mmlu" else "")


def test_the_schema_knows_every_layout() -> None:
    assert set(get_args(TaskLayout)) == set(LAYOUTS)
    assert len(LAYOUTS) == 14


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_local_copy_of_a_hub_table_is_read(tmp_path: Path, suffix: str) -> None:
    from datasets import Dataset

    path = tmp_path / f"rows.{suffix}"
    rows = Dataset.from_list([ROWS["arc_easy"][0]] * 3)
    rows.to_parquet(path) if suffix == "parquet" else rows.to_json(path)
    prepare("easy", source(source="hub", layout="arc_easy", path=str(path)), tmp_path / "out.jsonl")
    assert [item.id for item in read_items(tmp_path / "out.jsonl")] == ["easy-0", "easy-1", "easy-2"]


def test_a_table_of_other_columns_is_named_with_what_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"goal": "x"}\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"rows.jsonl:1: has no 'sol1'.*'piqa'.*goal"):
        prepare("p", source(source="hub", layout="piqa", path=str(tmp_path / "rows.jsonl")), tmp_path / "out.jsonl")


def test_unlabelled_rows_are_refused(tmp_path: Path) -> None:
    row = {**ROWS["piqa"][0], "label": -1}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row), encoding="utf-8")
    with pytest.raises(UserError, match="answer=-1"):
        prepare("p", source(source="hub", layout="piqa", path=str(tmp_path / "rows.jsonl")), tmp_path / "out.jsonl")


def test_own_items_take_a_letter_or_a_place_as_the_answer(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"question": "q", "choices": ["x", "y"], "answer": "B"},
        {"question": "q", "choices": ["x", "y"], "answer": 0, "id": "mine"},
    ]
    (tmp_path / "own.json").write_text(json.dumps(rows), encoding="utf-8")
    prepare("own", source(source="json", path=str(tmp_path / "own.json")), tmp_path / "out.jsonl")
    assert [(item.id, item.answer) for item in read_items(tmp_path / "out.jsonl")] == [("own-0", 1), ("mine", 0)]
    (tmp_path / "own.json").write_text(json.dumps([{**rows[0], "answer": "E"}]), encoding="utf-8")
    with pytest.raises(UserError, match="record 1: answer=4"):
        prepare("own", source(source="json", path=str(tmp_path / "own.json")), tmp_path / "out.jsonl")


@pytest.mark.parametrize(
    ("block", "named"),
    [
        ('{"source": "magic"}', "magic"),
        ("{", "JSON"),
        ('{"source": "release", "pth": "x"}', "pth"),
        ('{"source": "hub", "layout": "pica"}', "piqa"),
    ],
)
def test_a_wrong_source_block_is_one_message(block: str, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        main("x", block, tmp_path / "out.jsonl")
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert named in shown
