"""Sizes are said of the base that the user gave, whatever was made of it in between."""

from __future__ import annotations

from pathlib import Path

import pytest

from pat.bases.refit import refit_readers
from pat.bases.rotate import rotate
from pat.checkpoints.first_base import first_base
from pat.errors import UserError
from pat.io import artefacts
from pat.pruners.pruning import prune
from tests.kit.cell_maker import cell
from tests.kit.pruning_inputs import calibration, write_base
from tests.kit.tiny_models import tiny_model
from tests.kit.written_tables import tables_of


def test_a_tie_that_a_rotation_takes_apart_is_not_the_user_s_base(tmp_path: Path) -> None:
    write_base("llama-grouped-tied", tmp_path / "base")
    unique = sum(parameter.numel() for parameter in tiny_model("llama-grouped-tied").parameters())
    rotated = rotate(tmp_path / "base", "pca", calibration(tmp_path), tmp_path / "rotated", tie="break")
    assert rotated["parameters"]["after"]["unique"] == unique + 97 * 48 and rotated["removed"] < 0
    refit_readers(tmp_path / "rotated", "leading", 0.25, 4, calibration(tmp_path), tmp_path / "refitted")
    record = prune(tmp_path / "refitted", "channel-magnitude", 0.25, 4, tmp_path / "pruned")
    assert record["base"] == {"hidden_size": 48, "parameters": rotated["parameters"]["before"]}
    after = record["parameters"]["after"]["unique"]
    assert record["removed"] == 1 - after / unique
    card = (tmp_path / "pruned" / "README.md").read_text()
    assert f"| parameters, each counted once | {unique:,} | {after:,} |" in card
    assert f"{record['removed']:.2%} of the base model's parameters are removed" in card and "effective" not in card
    assert first_base(tmp_path / "pruned") == record["base"]
    assert first_base(tmp_path / "base") is None


def test_records_of_earlier_versions_count_as_they_are_and_broken_ones_are_told(tmp_path: Path) -> None:
    counts = {"before": {"unique": 9, "without_embeddings": 5}, "after": {"unique": 8, "without_embeddings": 4}}
    artefacts.write_json(tmp_path / "rotation.json", {"hidden_size": {"before": 4, "after": 4}, "parameters": counts})
    assert first_base(tmp_path) == {"hidden_size": 4, "parameters": counts["before"]}
    artefacts.write_json(tmp_path / "rotation.json", {"hidden_size": 4})
    with pytest.raises(UserError, match=r"rotation\.json: does not say which sizes its base has"):
        first_base(tmp_path)


def test_the_table_of_sizes_says_removed_of_the_base_and_kl(tmp_path: Path) -> None:
    text = (tables_of(tmp_path / "new", [cell(ratio=0.25) | {"kl_on_text": 2e-5}]) / "sizes.md").read_text()
    assert "KL on text" in text and "2.0e-05" in text and "effective" not in text and "logit gap" not in text
    assert "logit gap" in (tables_of(tmp_path / "old", [cell(ratio=0.25)]) / "sizes.md").read_text()
