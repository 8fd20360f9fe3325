"""The tables of keys and config/schema.json: current, complete, and true of every experiment file there is."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from pat.io.yaml_files import read_yaml
from tools import keys

EXPERIMENTS = sorted((keys.ROOT / "config").glob("*.yaml"))
WHOLE = keys.described()
PATHS = [found["path"] for found in keys.BLOCK.finditer(keys.PAGE.read_text(encoding="utf-8"))]


def faults(contents: Any) -> list[str]:
    validator = jsonschema.Draft202012Validator(keys.of_a_file(WHOLE))
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in validator.iter_errors(contents)]


def test_schema_and_tables_are_current() -> None:
    assert keys.SCHEMA.read_text(encoding="utf-8") == keys.schema_text(WHOLE), "call make keys"
    text = keys.PAGE.read_text(encoding="utf-8")
    assert keys.page(text, WHOLE) == text, "call make keys"


def test_every_block_has_its_table_and_every_key_a_meaning() -> None:
    shown = [keys.block_at(path, WHOLE) for path in PATHS]
    for name, block in WHOLE["$defs"].items():
        tables = [each for each in shown if each == block or {"$ref": f"#/$defs/{name}"} in each.get("oneOf", ())]
        assert tables, f"{name}: no table in {keys.PAGE}"
        for key, value in block["properties"].items():
            assert value.get("description"), f"{name}.{key}: has no description"


def test_every_experiment_file_is_in_the_pages_first_table() -> None:
    named = re.findall(r"`([\w-]+\.yaml)`", keys.PAGE.read_text(encoding="utf-8").partition("\n## ")[0])
    assert sorted(named) == [path.name for path in EXPERIMENTS]


def test_a_row_tells_type_default_range_and_meaning() -> None:
    rows = keys.table("tuning", WHOLE).splitlines()
    assert "| `batch_size` | whole number | required | > 0 | rows per optimizer step, of all devices together |" in rows
    assert any(row.startswith("| `schedule` | `cosine`, `linear`, `constant` | `cosine` |  | ") for row in rows)
    assert "| `learning_rates` | list of numbers | required | at least 2, each > 0, ≤ 1,000,000 |" in keys.table("tuning.search", WHOLE)
    assert keys.table("data.tasks.*", WHOLE).startswith("`source: world`: the embedded generator.\n\n`source: json`: a local JSON file.\n")


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.name)
def test_every_experiment_file_fits_the_schema(path: Path) -> None:
    assert faults(read_yaml(path)) == []


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.name)
def test_every_experiment_file_names_the_schema_for_editors(path: Path) -> None:
    assert path.read_text(encoding="utf-8").splitlines()[0] == "# yaml-language-server: $schema=schema.json"


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("tuning.batch_size", 0, "tuning.batch_size: 0 is less than or equal to the minimum of 0"),
        ("tuning.bach_size", 4, "Additional properties are not allowed ('bach_size' was unexpected)"),
        ("pat.mask", "best", "pat.mask: 'best' is not one of"),
        ("models.tiny.pretrain.heldout_fraction", 0.7, "models.tiny.pretrain: "),
        ("methods.pat.pat.milestone_fraction", 0, "methods.pat: "),
        ("name", None, "None is not of type 'string'"),
    ],
)
def test_the_schema_refuses_what_cannot_be(place: str, value: object, said: str) -> None:
    contents = read_yaml(keys.ROOT / "config" / "demo.yaml")
    *outer, key = place.split(".")
    block = contents
    for each in outer:
        block = block[each]
    block[key] = value
    assert said in "\n".join(faults(contents))


def test_a_file_that_extends_nothing_gives_all_that_is_needed() -> None:
    contents = read_yaml(keys.ROOT / "config" / "demo.yaml")
    del contents["data"]
    assert faults(contents)
    assert faults({**contents, "extends": "demo.yaml", "data": {"tasks": {"sums": None}}}) == []


def test_the_check_tells_what_is_not_current(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "README.md"
    page.write_text("# Keys\n\n<!-- keys:tuning.lora -->\nold\n<!-- /keys -->\nprose\n", encoding="utf-8")
    for name, value in (("ROOT", tmp_path), ("SCHEMA", tmp_path / "schema.json"), ("PAGE", page)):
        monkeypatch.setattr(keys, name, value)
    monkeypatch.setattr("sys.argv", ["keys", "--check"])
    assert keys.main() == 1 and "old" in page.read_text(encoding="utf-8")
    assert "README.md: is not current; call make keys" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["keys"])
    assert keys.main() == 0
    assert re.search(r"-->\n\n\| key \|.+\| `rank` \|.+<!-- /keys -->\nprose\n$", page.read_text(encoding="utf-8"), re.DOTALL)
    assert json.loads((tmp_path / "schema.json").read_text(encoding="utf-8"))["title"] == "An experiment's file"
    monkeypatch.setattr("sys.argv", ["keys", "--check"])
    assert keys.main() == 0
