"""What holds for every pruner: what it refuses, and that equal inputs give equal bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pat.errors import UserError
from pat.pruners import PRUNERS
from pat.pruners.pruning import prune
from pat.settings.jobs import PruneSettings
from study.experiment.methods import METHODS
from tests.kit.tiny_models import tiny_model


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
            "tie: has no effect on --pruner channel-magnitude, whose settings are: writers; leave it out",
        ),
        ("slicegpt", {"writers": "refitted"}, "writers: has no effect on --pruner slicegpt, whose settings are: size"),
        ("shortgpt", {"protect_first": 0}, "protect_first: has no effect on --pruner shortgpt"),
    ],
)
def test_settings_of_other_pruners_are_not_passed_over(pruner: str, own: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        prune(tmp_path / "base", pruner, 0.5, "auto", tmp_path / "pruned", own=PruneSettings(**own))


def test_every_method_that_names_a_pruner_has_one() -> None:
    assert {method.pruner for method in METHODS.values() if method.pruner} == set(PRUNERS)
