"""Atomic files and folders: a failure leaves the old state, a change is noticed, a mistake is named with file and line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pat.errors import UserError
from pat.io.artefacts import check_folder, new_folder, read_json, read_jsonl, write_json, write_jsonl, write_text
from pat.io.provenance import config_hash, provenance
from tests.kit.children import NO_PROCESS


def test_a_failed_folder_leaves_the_old_one(tmp_path: Path) -> None:
    with new_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("old")
    with pytest.raises(RuntimeError), new_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("new")
        raise RuntimeError
    assert (tmp_path / "out" / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    check_folder(tmp_path / "out")


def test_a_new_folder_replaces_the_old_one_whole(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with new_folder(tmp_path / "out") as folder:
            (folder / name).write_text(name)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["b", "manifest.json"]


@pytest.mark.parametrize(("umask", "expected"), [(0o022, 0o644), (0o027, 0o640), (0o002, 0o664)])
def test_who_may_read_a_folder_may_read_its_weights(umask: int, expected: int, tmp_path: Path) -> None:
    former = os.umask(umask)
    try:
        with new_folder(tmp_path / "out") as folder:
            (folder / "part").mkdir()
            save_file({"a": torch.zeros(2)}, folder / "part" / "weights.safetensors")
            (folder / "script").write_text("")
            (folder / "script").chmod(0o700)
    finally:
        os.umask(former)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert modes == {"weights.safetensors": expected, "manifest.json": expected, "script": 0o700 | expected}
    check_folder(tmp_path / "out")


def test_leftovers_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    (tmp_path / f".out.{NO_PROCESS}.tmp").mkdir()
    with new_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("a")
    assert not (tmp_path / f".out.{NO_PROCESS}.tmp").exists()


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "manifest"])
def test_damage_is_noticed_and_named(damage: str, tmp_path: Path) -> None:
    with new_folder(tmp_path / "out") as folder:
        (folder / "weights").write_bytes(b"12345")
    path = tmp_path / "out" / "weights"
    match damage:
        case "flip":
            path.write_bytes(b"12845")
        case "truncate":
            path.write_bytes(b"123")
        case "remove":
            path.unlink()
        case "manifest":
            path = tmp_path / "out" / "manifest.json"
            path.unlink()
    with pytest.raises(UserError, match=path.name.replace(".", r"\.")):
        check_folder(tmp_path / "out")


def test_text_is_replaced_in_one_piece(tmp_path: Path) -> None:
    write_text(tmp_path / "deep" / "file", "a")
    write_text(tmp_path / "deep" / "file", "b")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["file"]
    assert (tmp_path / "deep" / "file").read_text() == "b"


def test_equal_values_give_equal_bytes(tmp_path: Path) -> None:
    write_json(tmp_path / "a", {"x": 1, "y": [1.5]})
    write_json(tmp_path / "b", {"y": [1.5], "x": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    for value, place in ((float("nan"), "the value"), ({"x": [1.0, float("inf")]}, "x.1")):
        with pytest.raises(UserError, match=rf"/c: not written: {place} is not a finite number"):
            write_json(tmp_path / "c", value)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": 1}\nnot json\n', ":2: is not valid JSON"),
        ('{"a": 1}\n[1]\n', ":2: must be a JSON object"),
        ('{"b": 1}\n', ":1: lacks"),
        ("\n", "no rows"),
    ],
)
def test_broken_lines_are_named(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        read_jsonl(path, ["a"])


def test_missing_and_broken_files_are_user_errors(tmp_path: Path) -> None:
    (tmp_path / "broken").write_text("{")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name, read in (("missing", read_json), ("broken", read_json), ("binary", read_json)):
        with pytest.raises(UserError, match=name):
            read(tmp_path / name)
    for name in ("missing", "binary"):
        with pytest.raises(UserError, match=name):
            read_jsonl(tmp_path / name, [])


def test_rows_come_back(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"a": "ü", "b": [1]}, {"a": "line\nbreak", "b": []}]
    assert write_jsonl(tmp_path / "r", rows) == 2
    assert read_jsonl(tmp_path / "r", ["a", "b"]) == rows


def test_the_hash_is_of_the_content() -> None:
    assert config_hash({"a": 1, "b": 2}) == config_hash({"b": 2, "a": 1}) != config_hash({"a": 1, "b": 3})
    record = provenance({"a": 1}, seed=3)
    assert record["seed"] == 3 and record["config_hash"] == config_hash({"a": 1}) and "torch" in str(record["versions"])


@pytest.mark.parametrize(
    ("below", "said"), [("out", "is in the way, where a folder is to be made"), ("more/out", "a part of the path is a file")]
)
def test_a_file_where_a_folder_is_to_be_made_is_told(below: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(UserError, match=f"mine.*: .*{said}"):
        write_text(tmp_path / "mine" / below, "text")
    with pytest.raises(UserError, match=f"mine.*: .*{said}"), new_folder(tmp_path / "mine" / below):
        pass
    assert (tmp_path / "mine").read_text() == "mine"
