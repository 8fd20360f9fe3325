"""Verbs that do alike take alike: a log, plugins, and columns by the names that a file has for them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pat.io.artefacts import read_json, write_jsonl
from tests.kit.command_places import Command, verbs
from tests.kit.commands import outcome, run
from tests.kit.tiny_world import ROWS, write_world

HANDED_OVER = {"validate", "explain"}
"""They are the study's, which has options of its own."""
EVERY = [command for command in verbs() if str(command) not in HANDED_OVER]
READ_BY_COLUMNS = {"data": "column", "calibration": "calibration_column", "text": "text_column", "corpus": "text_column"}


@pytest.mark.parametrize("command", EVERY, ids=str)
def test_every_verb_has_a_log_and_plugins(command: Command) -> None:
    assert {"log", "plugin"} <= command.parameters().keys()


@pytest.mark.parametrize("command", EVERY, ids=str)
def test_every_verb_that_reads_rows_is_told_what_their_fields_are_called(command: Command) -> None:
    asked = command.parameters().keys()
    assert all(option in asked for read, option in READ_BY_COLUMNS.items() if read in asked)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, and the same rows under other names: to tune on, and to measure on."""
    folder = tmp_path_factory.mktemp("columns")
    write_world(folder)
    write_jsonl(folder / "faq.jsonl", [{"q": row["instruction"], "a": row["output"]} for row in ROWS])
    write_jsonl(folder / "articles.jsonl", [{"body": " ".join(map(str, range(place, place + 60)))} for place in range(30)])
    return folder


ASKED = {
    "rotate": ["--basis", "pca"],
    "refit-readers": ["--ratio", "0.25", "--mask", "variance", "--align", "4"],
    "prepare": ["--ratio", "0.25", "--align", "4"],
    "prune": ["--ratio", "0.25", "--pruner", "wanda-sp"],
}
LEARNED = ["--data", "faq.jsonl", "--column", "prompt=q", "--column", "completion=a"]


@pytest.mark.parametrize("verb", ASKED)
def test_text_is_measured_by_the_names_that_its_file_has(
    verb: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(files)
    common = [
        verb,
        "--base",
        "base",
        "--calibration",
        "articles.jsonl",
        "--calibration-tokens",
        "600",
        "--out",
        str(tmp_path / "out"),
        *ASKED[verb],
    ]
    common += LEARNED if verb == "refit-readers" else []
    code, said = outcome(common, capsys)
    assert code == 1 and "lacks the fields of a row" in said
    with pytest.raises(SystemExit) as ended:
        run([*common, "--calibration-column", "text=body"])
    assert not ended.value.code
    (record,) = (
        path
        for name in ("rotation", "prune", "readers")
        if (path := tmp_path / "out" / f"{name}.json").is_file() and (name != "rotation" or verb == "rotate")
    )
    told = json.dumps(read_json(record)["provenance"]["settings"])
    assert '{"text": "body"}' in told and (
        verb != "refit-readers" or '{"completion": "a", "prompt": "q"}' in json.dumps(json.loads(told), sort_keys=True)
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["refit-readers", "--mask", "leading", "--ratio", "0.25", "--calibration", "articles.jsonl", "--column", "text=body"],
         "--column text=body: has no effect without --data"),
        (["prune", "--pruner", "channel-magnitude", "--ratio", "0.25", "--calibration-column", "text=body"],
         "--calibration-column text=body: has no effect without --calibration"),
        (["prune", "--pruner", "channel-magnitude", "--ratio", "0.25", "--calibration-tokens", "64"],
         "--calibration-tokens 64: has no effect without --calibration"),
        (["prune", "--pruner", "wanda-sp", "--ratio", "0.25", "--calibration", "articles.jsonl", "--calibration-column", "words=body"],
         "--calibration-column 'words=body': 'words' is none of our fields"),
    ],
)  # fmt: skip
def test_a_column_of_nothing_is_told(
    arguments: list[str], said: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(files)
    code, told = outcome([*arguments, "--base", "base", "--out", str(tmp_path / "out")], capsys)
    assert code == 1 and said in told and not (tmp_path / "out").exists()


REFIT = ["refit-readers", "--mask", "leading", "--ratio", "0.25", "--align", "4", "--calibration", "articles.jsonl"]


@pytest.mark.parametrize(
    ("ridges", "said"),
    [
        (["0"], "--ridge 0: has to be above 0 and at most 1e+06"),
        (["nan"], "--ridge nan: has to be above 0"),
        (["1e-3", "2e6"], "--ridge 2e+06: has to be above 0 and at most 1e+06"),
        (["1e-6", "0.000001"], "--ridge 1e-06 1e-06: each only once"),
    ],
)
def test_what_is_no_ridge_is_told(
    ridges: list[str], said: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(files)
    named = [word for ridge in ridges for word in ("--ridge", ridge)]
    code, told = outcome([*REFIT, *named, "--base", "base", "--out", str(tmp_path / "out")], capsys)
    assert code == 1 and said in told and not (tmp_path / "out").exists()


def test_the_ridges_that_are_named_are_those_that_are_tried(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files)
    columns = ["--calibration-column", "text=body", "--calibration-tokens", "64", "--device", "cpu"]
    with pytest.raises(SystemExit) as ended:
        run([*REFIT, "--ridge", "1e-2", "--ridge", "1.2345678e-4", *columns, "--base", "base", "--out", str(tmp_path / "out")])
    assert not ended.value.code
    assert [way["ridge"] for way in read_json(tmp_path / "out" / "readers.json")["tried"]] == [1e-2, 1.2345678e-4] * 2


def test_held_out_text_is_read_by_the_field_that_is_named(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files)
    settings = json.dumps({"batch_size": 4, "perplexity_context": 16, "device": "cpu"})
    with pytest.raises(SystemExit) as ended:
        run(
            [
                "evaluate",
                "--model",
                "base",
                "--text",
                "articles.jsonl",
                "--text-column",
                "body",
                "--settings",
                settings,
                "--out",
                str(tmp_path / "x.json"),
            ]
        )
    assert not ended.value.code
    record = read_json(tmp_path / "x.json")
    assert record["perplexity"].keys() == {"articles"} and record["provenance"]["settings"]["text_column"] == "body"
