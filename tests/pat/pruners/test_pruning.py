"""What holds for every pruner: what it refuses, and that equal inputs give equal bytes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from pat.bases.rotate import rotate
from pat.checkpoints import checkpoint
from pat.errors import UserError
from pat.io.artefacts import MANIFEST
from pat.pruners import PRUNERS
from pat.pruners.pruning import PRUNE_RECORD, prune
from pat.settings.jobs import PruneSettings
from study.experiment.methods import METHODS
from tests.kit.pruning_inputs import calibration, write_base
from tests.kit.tiny_models import tiny_model

PLACED = (PRUNE_RECORD, MANIFEST)
"""Files that say where the model lies."""


@pytest.mark.parametrize("pruner", PRUNERS)
def test_equal_inputs_give_equal_bytes(pruner: str, tmp_path: Path) -> None:
    """With settings that lead through more of it than their defaults do."""
    write_base("llama-grouped", tmp_path / "base")
    chosen = {"protect_first": 1, "protect_last": 1, "size": "nominal", "writers": "refitted"}
    own = PruneSettings.model_validate({key: value for key, value in chosen.items() if key in PRUNERS[pruner].settings})
    for name in ("once", "again"):
        prune(tmp_path / "base", pruner, 0.5, 8, tmp_path / name, calibration(tmp_path, tokens=400), own=own)
    for path in (tmp_path / "once").iterdir():
        assert path.name in PLACED or path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


@pytest.mark.parametrize("pruner", [name for name, pruner in PRUNERS.items() if pruner.measures == "text"])
def test_what_measures_on_text_asks_for_it_before_the_model_is_loaded(pruner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_base("llama", tmp_path / "base")
    monkeypatch.setattr(checkpoint, "load_to_measure", lambda *_: pytest.fail("loaded before the text was asked for"))
    with pytest.raises(UserError, match="--calibration: is required"):
        prune(tmp_path / "base", pruner, 0.4, "auto", tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("pruner", "ratio", "align", "message"),
    [
        ("magic", 0.5, "auto", "one of channel-fisher"),
        ("channel-magnitude", 0.0, "auto", "between 0 and 1"),
        ("channel-magnitude", 0.5, 64, "align=64"),
    ],
)
def test_refusals(pruner: str, ratio: float, align: Any, message: str, tmp_path: Path) -> None:
    tiny_model("llama").save_pretrained(tmp_path / "base")
    with pytest.raises(UserError, match=message):
        prune(tmp_path / "base", pruner, ratio, align, tmp_path / "pruned")
    assert not (tmp_path / "pruned").exists()


@pytest.mark.parametrize(
    ("pruner", "own", "message"),
    [
        (
            "channel-magnitude",
            {"tie": "break"},
            "tie: has no effect on --pruner channel-magnitude: the settings of channel-magnitude are: writers; leave it out",
        ),
        (
            "shortgpt",
            {"writer_tokens": 4096},
            "writer_tokens: has no effect on --pruner shortgpt: its writers stay plain unless `writers: refitted` is set; leave it out",
        ),
        ("slicegpt", {"writer_tokens": 4096}, "writer_tokens: has no effect on --pruner slicegpt: the settings of slicegpt are: size;"),
        ("slicegpt", {"writers": "refitted"}, "writers: has no effect on --pruner slicegpt: the settings of slicegpt are: size;"),
        ("shortgpt", {"protect_first": 0}, "protect_first: has no effect on --pruner shortgpt"),
    ],
)
def test_settings_of_other_pruners_are_not_passed_over(pruner: str, own: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        prune(tmp_path / "base", pruner, 0.5, "auto", tmp_path / "pruned", own=PruneSettings(**own))


def test_every_method_that_names_a_pruner_has_one() -> None:
    assert {method.pruner for method in METHODS.values() if method.pruner} == set(PRUNERS)


@pytest.mark.parametrize("verb", ["prune", "rotate"])
def test_a_saved_set_is_text_to_measure_on_as_a_file_is(verb: str, tmp_path: Path) -> None:
    """Its checksum was asked of a folder once all was done, and the finished model was thrown away."""
    write_base("llama", tmp_path / "base")
    text = calibration(tmp_path, tokens=400)
    rows = [json.loads(line) for line in text.path.read_text(encoding="utf-8").splitlines()]
    Dataset.from_list(rows).save_to_disk(str(tmp_path / "saved"))
    saved, out = replace(text, path=tmp_path / "saved"), tmp_path / "out"
    if verb == "prune":
        record = prune(tmp_path / "base", "channel-fisher", 0.5, 8, out, saved)
    else:
        record = rotate(tmp_path / "base", "pca", saved, out)
    assert all(name.endswith(".arrow") for name in record["provenance"]["inputs"]["calibration"]["sha256"])
    assert checkpoint.load_config(out).hidden_size > 0
