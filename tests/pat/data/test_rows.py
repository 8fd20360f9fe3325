"""One reader of rows for tuning, search, calibration, scoring and preparation: what is no text is refused with its file and line."""

from __future__ import annotations

import gzip
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from pat.data.instructions import Instructions
from pat.data.items import Item, read_items
from pat.data.rows import usable_rows
from pat.errors import UserError
from pat.io.artefacts import read_json
from pat.settings.jobs import TuneJob
from pat.training.tuning import tune
from study.data import instruct as prepare_instruct
from study.data.task import prepare as prepare_task
from tests.kit.commands import outcome
from tests.kit.tiny_checkpoint import CONTEXT, write_tiny_checkpoint
from tests.kit.tiny_world import ROWS, tiny_tokenizer, write_world
from tests.kit.tuning_requests import asked

GOOD = '{"instruction": "Say a.", "input": "", "output": "a"}'
TUNING = {"max_steps": 2, "learning_rate": 1e-3, "batch_size": 2, "lora": {"rank": 2}}
JOB = json.dumps({"tuning": TUNING})
SEARCH = json.dumps({"tuning": {**TUNING, "learning_rate": None, "search": {"learning_rates": [1e-3, 1e-2], "dev_rows": 1}}})
NO_TEXTS = ["null", "[1, 2]", "3", "0.5", "NaN", "Infinity", "true", '{"a": "b"}']


def row(**fields: str) -> str:
    """Return a row as a line of JSON, its fields given as they are to stand there."""
    whole = {"instruction": '"Say b."', "input": '""', "output": '"b"'} | fields
    return "{" + ", ".join(f'"{name}": {value}' for name, value in whole.items()) + "}"


def file_of(folder: Path, *lines: str) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


CASES = [
    *[("output", value) for value in (*NO_TEXTS, '""', '"  "')],
    *[("instruction", value) for value in (*NO_TEXTS, '" "')],
    *[("input", value) for value in NO_TEXTS if value != "null"],
]


@pytest.mark.parametrize(("field", "value"), CASES)
def test_tuning_refuses_a_row_that_is_no_text_and_leaves_a_blank_one_out(field: str, value: str, tmp_path: Path) -> None:
    path = file_of(tmp_path, GOOD, "", row(**{field: value}))
    if not value.strip('"').strip():
        rows = Instructions(path, tiny_tokenizer(), 256)
        assert len(rows) == 1 and rows.counts()["empty"] == 1
        return
    with pytest.raises(UserError, match=rf"rows\.jsonl:3: {field} is "):
        Instructions(path, tiny_tokenizer(), 256)


@pytest.mark.parametrize(("field", "value"), CASES)
def test_the_preparation_reads_rows_as_tuning_does(field: str, value: str, tmp_path: Path) -> None:
    """Blank ones, of which published sets have some, it leaves out and counts."""
    path = file_of(tmp_path, GOOD, row(**{field: value}))
    source = json.dumps({"source": "json", "path": str(path)})
    if not value.strip('"').strip():
        assert "left out 1" in prepare_instruct.prepare(source, 0, tmp_path / "out.jsonl")
        return
    with pytest.raises(UserError, match=rf"rows\.jsonl:2: {field} is "):
        prepare_instruct.prepare(source, 0, tmp_path / "out.jsonl")


def test_a_null_input_is_none_and_lamini_s_name_of_the_output_is_known(tmp_path: Path) -> None:
    path = file_of(tmp_path, '{"instruction": "Say a.", "input": null, "response": "a"}')
    assert usable_rows(path) == [json.loads(GOOD)]
    with pytest.raises(UserError, match="lacks the field output or response; it has instruction"):
        usable_rows(file_of(tmp_path, '{"instruction": "Say a."}'))


def test_what_an_instruction_is_about_is_read_by_dolly_s_name_too(tmp_path: Path) -> None:
    (row,) = usable_rows(file_of(tmp_path, '{"instruction": "Say it.", "context": "It is a.", "response": "a"}'))
    assert row == {"instruction": "Say it.", "input": "It is a.", "output": "a"}


def test_a_column_without_effect_is_told(tmp_path: Path) -> None:
    path = file_of(tmp_path, '{"q": "a", "a": "b"}')
    with pytest.raises(UserError, match="'a' is to be read as completion, which has no effect beside text"):
        usable_rows(path, {"text": "q", "completion": "a"})


def test_an_answer_whose_role_is_written_otherwise_is_not_left_out_in_silence(tmp_path: Path) -> None:
    path = file_of(tmp_path, '{"messages": [{"role": "user", "content": "x"}, {"role": "Assistant", "content": "y"}]}')
    with pytest.raises(UserError, match=r"messages\[1\]: role is .*Assistant.*; must be 'assistant'"):
        usable_rows(path)
    with pytest.raises(UserError, match="or has no message of the role assistant"):
        usable_rows(file_of(tmp_path, '{"messages": [{"role": "user", "content": "x"}, {"role": "bot", "content": "y"}]}'))


TALK = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]


def test_what_the_system_says_beside_the_messages_is_their_first(tmp_path: Path) -> None:
    """ShareGPT's files and those of many trainers have it there."""
    beside, within = {"role": "system", "content": "Be kind."}, [{"role": "system", "content": "Be kind."}, *TALK]
    lines = [
        {"conversations": talk, "system": system} for talk, system in ((TALK, "Be kind."), (within, "Be kind."), (TALK, " "), (TALK, None))
    ]
    read = usable_rows(file_of(tmp_path, *map(json.dumps, lines)))
    assert [row["messages"] for row in read] == [[beside, *TALK], within, TALK, TALK]
    with pytest.raises(UserError, match=r"rows\.jsonl:1: system is .*Be rude.*, and messages\[0\] says something else as system"):
        usable_rows(file_of(tmp_path, json.dumps({"messages": within, "system": "Be rude."})))


@pytest.mark.parametrize("beside", [{"system": "Be kind."}, {"history": [["a", "b"]]}])
def test_turns_that_an_instruction_has_beside_it_are_not_passed_over(beside: dict[str, Any], tmp_path: Path) -> None:
    (name,) = beside
    lines = [json.loads(GOOD) | dict.fromkeys(beside, ""), json.loads(GOOD) | beside]
    path = file_of(tmp_path, *map(json.dumps, lines))
    with pytest.raises(
        UserError, match=rf"rows\.jsonl:2: {name} is .*, which the Alpaca template has no place for: give messages, or name"
    ):
        usable_rows(path)
    assert usable_rows(path, {"instruction": "instruction", "output": "output"}) == [json.loads(GOOD)] * 2


def test_tools_are_part_of_a_conversation_as_a_list_or_as_text(tmp_path: Path) -> None:
    tools = [{"name": "weather"}]
    lines = [{"messages": TALK, "tools": given} for given in (tools, json.dumps(tools), None, "", "[]")]
    read = usable_rows(file_of(tmp_path, *map(json.dumps, lines)))
    assert read == [{"messages": TALK, "tools": tools}] * 2 + [{"messages": TALK}] * 3
    with pytest.raises(UserError, match=r"tools is .*; must be a list of tools"):
        usable_rows(file_of(tmp_path, json.dumps({"messages": TALK, "tools": "none"})))


def test_a_conversation_whose_answers_all_have_weight_0_teaches_nothing(tmp_path: Path) -> None:
    unlearned = {"messages": [TALK[0], TALK[1] | {"weight": 0}]}
    assert usable_rows(file_of(tmp_path, json.dumps({"messages": TALK}), json.dumps(unlearned))) == [{"messages": TALK}]
    with pytest.raises(UserError, match=r"messages\[1\]: weight is 0\.5; must be 1, or 0"):
        usable_rows(file_of(tmp_path, json.dumps({"messages": [TALK[0], TALK[1] | {"weight": 0.5}]})))


PLACES = {
    "tune": ("--base", "<w>/base", "--data", "<w>/rows.jsonl", "--tuner", "lora", "--settings", JOB, "--run-dir", "<w>/run"),
    "search-rate": ("--base", "<w>/base", "--data", "<w>/rows.jsonl", "--tuner", "lora", "--settings", SEARCH, "--run-dir", "<w>/run"),
    "rotate": ("--base", "<w>/base", "--basis", "pca", "--calibration", "<w>/rows.jsonl"),
    "prune": ("--base", "<w>/base", "--pruner", "slicegpt-1q", "--ratio", "0.5", "--calibration", "<w>/rows.jsonl"),
}


@pytest.mark.parametrize("verb", sorted(PLACES))
def test_every_verb_that_reads_instructions_names_the_line(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    write_world(tmp_path)
    file_of(tmp_path, *(json.dumps(one) for one in ROWS[:6]), row(output="null"))
    arguments = [it.replace("<w>", str(tmp_path)) for it in (verb, *PLACES[verb], "--out", "<w>/out")]
    code, said = outcome(arguments, capsys)
    assert code == 1 and "rows.jsonl:7: output is null" in said


@pytest.mark.parametrize("value", NO_TEXTS)
def test_texts_that_are_none_are_refused_where_they_are_scored_and_learned(
    value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    file_of(tmp_path, '{"text": "good"}', f'{{"text": {value}}}')
    shape = {"vocab_size": 300, "hidden_size": 8, "layers": 1, "heads": 2, "intermediate_size": 16, "context_length": 16}
    recipe = json.dumps(shape | {"steps": 1, "batch_size": 1, "learning_rate": 0.1})
    path = str(tmp_path / "rows.jsonl")
    for arguments in (
        ["evaluate", "--model", str(tmp_path), "--settings", "{}", "--text", path, "--out", str(tmp_path / "out.json")],
        ["pretrain", "--corpus", path, "--settings", recipe, "--run-dir", str(tmp_path / "run"), "--out", str(tmp_path / "out")],
    ):
        code, said = outcome(arguments, capsys)
        assert code == 1 and "rows.jsonl:2: text is " in said


def test_rows_cut_by_max_length_are_counted_told_and_kept_in_the_record(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    base, _ = write_world(tmp_path)
    prompt = len(tiny_tokenizer()("Say it.")["input_ids"])
    lines = [GOOD, row(output=json.dumps("word " * 60)), row(instruction=json.dumps("word " * 200))]
    job = TuneJob.model_validate({"tuning": TUNING | {"max_length": 60 + prompt}})
    with caplog.at_level(logging.INFO):
        tune(asked(base, file_of(tmp_path, GOOD, *lines), "lora", 0.0, 0, job, tmp_path / "run", tmp_path / "out"))
    assert read_json(tmp_path / "out" / "tuning.json")["rows"] == {
        "read": 4, "empty": 0, "left_out": 1, "cut": 1, "double": 1, "kept": 3, "max_length": 60 + prompt,
    }  # fmt: skip
    assert "of 4 rows, 1 lose the end of their answer and 1 are left out" in caplog.text
    assert "; 1 are there a second time and stay" in caplog.text


def test_rows_beyond_the_model_s_context_are_refused_and_a_max_length_beyond_it_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base, data = write_world(tmp_path)
    job = TuneJob.model_validate({"tuning": TUNING | {"max_length": 300}})
    long_ones = file_of(tmp_path, GOOD, row(output=json.dumps("word " * 400)))
    with pytest.raises(UserError, match=r"max_length: 300 is more than the model's context of 256 tokens, which 1 of 2 rows"):
        tune(asked(base, long_ones, "lora", 0.0, 0, job, tmp_path / "run", tmp_path / "out"))
    with caplog.at_level(logging.INFO):
        tune(asked(base, data, "lora", 0.0, 0, job, tmp_path / "run", tmp_path / "out"))
    assert "no row is longer than that" in caplog.text


def task_source(folder: Path, *rows: dict[str, Any]) -> str:
    path = folder / "own.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return json.dumps({"source": "json", "path": str(path)})


ITEM: dict[str, Any] = {"question": "Which? ", "choices": ["yes ", "\tno", "maybe"], "answer": 1}


def test_blanks_around_questions_and_choices_are_stripped(tmp_path: Path) -> None:
    prepare_task("own", task_source(tmp_path, ITEM), tmp_path / "out.jsonl")
    assert read_items(tmp_path / "out.jsonl") == [Item("own-0", "Which?", ("yes", "no", "maybe"), 1, "own")]
    assert Item("x", " q ", (" a", "b "), 0, "t") == Item("x", "q", ("a", "b"), 0, "t")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"choices": ["yes", " "]}, "none of them blank"),
        ({"choices": ["yes", None]}, "two or more texts"),
        ({"choices": "yes"}, "choices must be a list"),
        ({"question": " "}, "question=' '"),
        ({"question": None}, "question is null"),
        ({"id": [1]}, "id="),
        ({"id": True}, "id="),
        ({"answer": None}, "answer=None"),
        ({"answer": "yes"}, "answer='yes'"),
    ],
)
def test_an_item_that_cannot_be_scored_is_named(changes: dict[str, Any], named: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"own\.json: record 2: .*{named}"):
        prepare_task("own", task_source(tmp_path, ITEM, ITEM | changes), tmp_path / "out.jsonl")


def test_repeated_ids_are_named_and_a_null_id_is_none(tmp_path: Path) -> None:
    prepare_task("own", task_source(tmp_path, ITEM | {"id": None}, ITEM | {"id": None}), tmp_path / "out.jsonl")
    assert [item.id for item in read_items(tmp_path / "out.jsonl")] == ["own-0", "own-1"]
    with pytest.raises(UserError, match="gives 2 items the id '7'"):
        prepare_task("own", task_source(tmp_path, ITEM | {"id": 7}, ITEM | {"id": "7"}), tmp_path / "out.jsonl")


def test_a_published_task_with_equal_choices_is_read_and_told(tmp_path: Path) -> None:
    rows = [{"goal": "g", "sol1": "a ", "sol2": "a", "label": 0}, {"goal": "g", "sol1": "a", "sol2": "a", "label": 1}]
    (tmp_path / "piqa.jsonl").write_text("\n".join(map(json.dumps, rows)))
    own = prepare_task("own", task_source(tmp_path, ITEM, ITEM | {"choices": ["yes", "yes "], "answer": 0}), tmp_path / "own.jsonl")
    assert "2 items; 1 with a choice that is there twice, the first 'own-1'" in own  # published sets come as files of this form too
    said = prepare_task("p", json.dumps({"source": "hub", "layout": "piqa", "path": str(tmp_path / "piqa.jsonl")}), tmp_path / "out.jsonl")
    assert "2 items; 2 with a choice that is there twice, the first 'p-0'; 1 that ask what another one asks" in said


def test_texts_of_one_name_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    texts = []
    for name, pack in (("held.jsonl", bytes), ("held.jsonl.gz", gzip.compress)):
        (tmp_path / name).write_bytes(pack(b'{"text": "x"}\n'))
        texts += ["--text", str(tmp_path / name)]
    model = write_tiny_checkpoint(tmp_path / "model", context=CONTEXT)
    code, said = outcome(["evaluate", "--model", str(model), "--settings", "{}", *texts, "--out", str(tmp_path / "o.json")], capsys)
    assert code == 1 and "held.jsonl.gz: the text 'held' is given twice" in said


def test_a_column_of_no_text_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    model = write_tiny_checkpoint(tmp_path / "model", context=CONTEXT)
    task = ["--task", str(tmp_path / "toy.jsonl"), "--text-column", "body"]
    code, said = outcome(["evaluate", "--model", str(model), "--settings", "{}", *task, "--out", str(tmp_path / "o.json")], capsys)
    assert code == 1 and "--text-column body: has no effect without --text" in said
