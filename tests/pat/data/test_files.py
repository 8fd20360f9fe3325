"""Files as people have them: every format, packed or not, gives the same rows, and what is broken is named with file and row."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from datasets import Dataset, DatasetDict
from pyarrow import parquet

from pat.data.files import KINDS, PACKINGS, records
from pat.data.instructions import Instructions
from pat.data.items import read_items
from pat.data.rows import parse_columns, read_rows, usable_rows
from pat.errors import UserError
from pat.io.artefacts import read_json
from study.data import instruct as prepare_instruct
from tests.kit.commands import run
from tests.kit.tiny_checkpoint import byte_tokenizer
from tests.kit.tiny_world import write_world

ROWS = [
    {"instruction": "Add, please.", "input": "1 2", "output": "3"},
    {"instruction": 'Say "é"\nand NA.', "input": "", "output": "NA"},
]
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
TEXTS = [{"text": "One, two."}, {"text": "Dreißig"}]


def content(kind: str, rows: list[dict[str, Any]]) -> bytes:
    """Return rows as a file of a kind holds them."""
    if kind == ".jsonl":
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    if kind == ".json":
        return json.dumps(rows, indent=1).encode()
    if kind == ".csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, rows[0])
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue().encode()
    if kind == ".parquet":
        sink = io.BytesIO()
        parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
        return sink.getvalue()
    return "".join(row["text"] + "\n" for row in rows).encode()


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
    ".zst": lambda raw: bytes(pyarrow.compress(raw, "zstd", asbytes=True)),
}


@pytest.mark.parametrize("packing", ["", *PACKINGS])
@pytest.mark.parametrize("kind", KINDS)
def test_every_format_gives_the_same_rows_packed_or_not(kind: str, packing: str, tmp_path: Path) -> None:
    rows = TEXTS if kind == ".txt" else ROWS
    path = tmp_path / f"rows{kind}{packing}"
    path.write_bytes(PACKED[packing](content(kind, rows)))
    assert [dict(record.fields) for record in records(path)] == rows


def test_the_workflow_prepares_what_tuning_reads(tmp_path: Path) -> None:
    """A file of any format becomes lines in which tuning finds the same tokens."""
    path = tmp_path / "rows.csv.gz"
    path.write_bytes(gzip.compress(content(".csv", ROWS)))
    prepare_instruct.prepare(json.dumps({"source": "file", "path": str(path)}), 0, tmp_path / "out.jsonl")
    read, prepared = (Instructions(file, byte_tokenizer(), 512) for file in (path, tmp_path / "out.jsonl"))
    assert [read[place] for place in range(2)] == [prepared[place] for place in range(2)]


def test_a_json_file_with_an_object_a_line_and_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(BYTE_ORDER_MARK + content(".jsonl", ROWS))
    assert [dict(record.fields) for record in records(path)] == ROWS


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != ".parquet"])
def test_a_byte_order_mark_is_part_of_no_row(kind: str, tmp_path: Path) -> None:
    """Nor of a task's first item: what Windows writes begins with one."""
    rows = TEXTS if kind == ".txt" else ROWS
    path = tmp_path / f"rows{kind}"
    path.write_bytes(BYTE_ORDER_MARK + content(kind, rows))
    assert [dict(record.fields) for record in records(path)] == rows
    item = b'{"question": "q", "choices": ["a", "b"], "answer": "B"}\r\n'
    (tmp_path / "task.jsonl").write_bytes(BYTE_ORDER_MARK + item)
    assert [one.answer for one in read_items(tmp_path / "task.jsonl")] == [1]


def test_a_saved_data_set_is_read_and_of_its_splits_the_one_called_train(tmp_path: Path) -> None:
    whole = Dataset.from_list(ROWS)
    whole.save_to_disk(tmp_path / "whole")
    DatasetDict({"train": whole, "test": Dataset.from_list(ROWS[:1])}).save_to_disk(tmp_path / "split")
    DatasetDict({"a": whole, "b": whole}).save_to_disk(tmp_path / "others")
    for name, expected in (("whole", ROWS), ("split", ROWS), ("split/test", ROWS[:1])):
        assert usable_rows(tmp_path / name) == expected
    with pytest.raises(UserError, match=r"others: holds the splits a, b; name one of them, such as .*others/a"):
        list(records(tmp_path / "others"))
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match=r"none: is a folder, but none that `save_to_disk`"):
        list(records(tmp_path / "none"))
    for name in ("dataset_info.json", "dataset_dict.json"):
        for text in ("{}", "[]", "", '{"splits": 3}'):
            (tmp_path / "none" / name).write_text(text)
            (tmp_path / "none" / "state.json").write_text(text)
            with pytest.raises(UserError, match="none: cannot be read as a saved data set"):
                list(records(tmp_path / "none"))
        (tmp_path / "none" / name).unlink()


def parquet_of_two_columns(name: str) -> bytes:
    """Return a file that has two columns of a name, which Parquet allows."""
    sink = io.BytesIO()
    parquet.write_table(pyarrow.table([["a"], ["b"]], names=[name, name]), sink)
    return sink.getvalue()


NULL_IN_PARQUET = content(".parquet", [ROWS[0], ROWS[1] | {"output": None}])


@pytest.mark.parametrize(
    ("name", "raw", "named"),
    [
        ("a.csv", b"instruction,output\na,b\na\n", r"a\.csv: row 2: has fewer columns"),
        ("a.csv", b"instruction,output\na,b,c\n", r"a\.csv: row 1: has more columns"),
        ("a.csv", b'instruction,output\na,"b\n', r"a\.csv: row 1: is not valid CSV"),
        ("a.csv", b"instruction,output,output\na,b,c\n", r"a\.csv: the first line names the column 'output' twice"),
        ("a.csv", b"instruction,answer\na,b\n", r"a\.csv: row 1: lacks the field output or response"),
        ("a.csv", b"question,answer\na,b\n", r"a\.csv: row 1: lacks the fields of a row .*it has answer, question; name its columns"),
        ("a.parquet", b"PAR1 not", r"a\.parquet: cannot be read as Parquet"),
        ("a.parquet", parquet_of_two_columns("text"), r"a\.parquet: names the column 'text' twice; one of them would be lost"),
        ("a.parquet", NULL_IN_PARQUET, r"a\.parquet: row 2: output is null"),
        ("a.jsonl.gz", b"\x1f\x8b broken", r"a\.jsonl\.gz: cannot be read"),
        ("a.jsonl.bz2", b"broken", r"a\.jsonl\.bz2: cannot be read"),
        ("a.jsonl.zst", b"broken", r"a\.jsonl\.zst: cannot be read"),
        ("a.jsonl.xz", b"broken", r"a\.jsonl\.xz: cannot be read"),
        ("a.tsv", b"x", r"a\.tsv: must end in \.jsonl, \.json, \.csv"),
        ("a.txt", b"", r"a\.txt: holds no rows"),
    ],
)
def test_what_is_broken_is_named_with_file_and_row(name: str, raw: bytes, named: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(UserError, match=named):
        list(read_rows(tmp_path / name))


def test_columns_by_other_names_are_read_and_these_alone(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("instruction,question,answer\nno,2+2?,4\n", encoding="utf-8")
    columns = parse_columns(["prompt=question", "completion=answer"])
    assert usable_rows(path, columns) == [{"prompt": "2+2?", "completion": "4"}]
    block = {"source": "file", "path": str(path), "columns": columns}
    prepare_instruct.prepare(json.dumps(block), 0, tmp_path / "out.jsonl")
    assert usable_rows(tmp_path / "out.jsonl") == [{"prompt": "2+2?", "completion": "4"}]
    with pytest.raises(UserError, match="row 1: lacks the column 'q', which is to be read as prompt; it has answer, instruction, question"):
        usable_rows(path, {"prompt": "q"})


@pytest.mark.lengthy
def test_a_tuning_reads_a_table_with_columns_of_other_names_for_its_mask_and_its_search_too(tmp_path: Path) -> None:
    base, _ = write_world(tmp_path)
    lines = "".join(f"What is {number}?,number {number % 3}\n" for number in range(8))
    (tmp_path / "faq.csv").write_text("question,answer\n" + lines, encoding="utf-8")
    recipe = {"max_steps": 6, "batch_size": 2, "lora": {"rank": 2}, "search": {"learning_rates": [1e-3, 1e-2], "dev_rows": 2}}
    job = json.dumps({"tuning": recipe, "pat": {"mask": "variance", "hio_rank": 2}})
    columns = ["--column", "prompt=question", "--column", "completion=answer"]
    common = ["--base", str(base), "--data", str(tmp_path / "faq.csv"), *columns, "--tuner", "pat", "--ratio", "0.5", "--settings", job]
    rate, adapter = str(tmp_path / "rate.json"), str(tmp_path / "adapter")
    for arguments in (
        ["search-rate", *common, "--run-dir", str(tmp_path / "search"), "--out", rate],
        ["tune", *common, "--rate-from", rate, "--run-dir", str(tmp_path / "run"), "--out", adapter],
    ):
        with pytest.raises(SystemExit) as ended:
            run(arguments)
        assert not ended.value.code
    record = read_json(tmp_path / "adapter" / "tuning.json")
    assert record["rows"]["kept"] == 8
    assert record["provenance"]["settings"]["columns"] == {"prompt": "question", "completion": "answer"}
    assert record["provenance"]["inputs"]["rate"]["path"] == rate


@pytest.mark.parametrize(("pair", "named"), [("prompt", "must be ours=theirs"), ("promt=q", "did you mean 'prompt'")])
def test_a_column_that_is_none_is_refused(pair: str, named: str) -> None:
    with pytest.raises(UserError, match=named):
        parse_columns([pair])


def test_a_column_is_one_field_alone() -> None:
    for pairs in (["prompt=q", "prompt=r"], ["prompt=q", "completion=q"]):
        with pytest.raises(UserError, match=r"is given twice|is read as another of our fields already"):
            parse_columns(pairs)


def test_of_a_prompt_the_completion_is_learned_and_of_a_text_all_in_pieces(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content(".jsonl", [{"prompt": "ab:", "completion": "cd"}, {"text": "x" * 20}]))
    rows = Instructions(path, tokenizer, 8)
    learned = [[token for token in rows[place]["labels"] if token >= 0] for place in range(len(rows))]
    assert [tokenizer.decode(ids) for ids in learned] == ["cd</s>", "x" * 8, "x" * 8, "x" * 4 + "</s>"]
    assert rows.counts()["read"] == 2 and rows.losses() is None
