"""`extends`: a variant's file names its differences alone, and broken chains are told in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pat.errors import UserError
from pat.io.artefacts import write_text
from study.experiment.extends import resolved
from study.experiment.file import load_experiment
from tests.kit.project import ROOT

BASE = {
    "name": "base",
    "seeds": [0],
    "methods": {"lora": None, "pat": {"lora": {"rank": 3}}},
    "tuning": {"learning_rate": 1.0, "lora": {"rank": 4, "alpha": 2.0}},
}


def written(folder: Path, name: str, content: object) -> Path:
    write_text(folder / name, yaml.safe_dump(content))
    return folder / name


def test_blocks_are_joined_and_the_grid_is_replaced(tmp_path: Path) -> None:
    written(tmp_path, "base.yaml", BASE)
    own = {"extends": "base.yaml", "name": "own", "methods": {"pat": None}, "tuning": {"lora": {"rank": 8}}}
    assert resolved(own, tmp_path / "own.yaml") == {
        "name": "own",
        "seeds": [0],
        "methods": {"pat": None},
        "tuning": {"learning_rate": 1.0, "lora": {"rank": 8, "alpha": 2.0}},
    }


def test_a_source_is_replaced_with_all_its_keys(tmp_path: Path) -> None:
    written(tmp_path, "base.yaml", {"data": {"instruct": {"source": "hub", "id": "x"}, "text": {"a": {"source": "world"}}}})
    own = {"extends": "base.yaml", "data": {"instruct": {"source": "world"}, "text": {"b": {"source": "world"}}}}
    expected = {"instruct": {"source": "world"}, "text": {"a": {"source": "world"}, "b": {"source": "world"}}}
    assert resolved(own, tmp_path / "own.yaml") == {"data": expected}


def test_a_named_entry_that_is_null_is_taken_out(tmp_path: Path) -> None:
    base = {"data": {"tasks": {"a": {"source": "world"}, "b": {"source": "world"}}}, "tables": {"ablations": {"x": ["y"]}}}
    written(tmp_path, "base.yaml", base)
    own = {"extends": "base.yaml", "data": {"tasks": {"b": None}}, "tables": {"ablations": {"x": None}}}
    expected = {"data": {"tasks": {"a": {"source": "world"}}}, "tables": {"ablations": {}}}
    assert resolved(own, tmp_path / "own.yaml") == expected


def test_a_chain_of_files_is_followed_from_each_files_folder(tmp_path: Path) -> None:
    written(tmp_path, "base.yaml", BASE)
    written(tmp_path / "more", "middle.yaml", {"extends": "../base.yaml", "seeds": [1, 2]})
    assert resolved({"extends": "more/middle.yaml", "name": "own"}, tmp_path / "own.yaml") == BASE | {"name": "own", "seeds": [1, 2]}


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({"extends": 3}, {}, "extends: must be the path"),
        ({"extends": "missing.yaml"}, {}, "missing.yaml: no such file"),
        ({"extends": "first.yaml"}, {}, "cannot start from itself"),
        ({"extends": "second.yaml"}, {"extends": "first.yaml"}, "cannot start from itself"),
        ({"extends": "second.yaml"}, [1], "must hold a mapping"),
    ],
)
def test_a_broken_chain_is_one_clear_message(tmp_path: Path, first: object, second: object, message: str) -> None:
    file = written(tmp_path, "first.yaml", first)
    written(tmp_path, "second.yaml", second)
    with pytest.raises(UserError, match=message):
        load_experiment(file, "first.yaml")


def test_an_experiment_that_extends_is_the_one_written_out(tmp_path: Path) -> None:
    whole = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    written(tmp_path, "whole.yaml", whole)
    short = written(tmp_path, "short.yaml", {"extends": "whole.yaml", "seeds": [0, 1]})
    assert load_experiment(short, "short.yaml") == load_experiment(whole | {"seeds": [0, 1]}, "whole.yaml")
