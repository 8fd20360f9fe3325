"""A width that rules a runtime's format out is told before the run, once a width, and `align: gguf` is a width that rules none out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pat import PatConfig
from pat.cli import app
from pat.errors import UserError
from pat.settings.formats import ruled_out
from study.experiment.file import load_experiment
from study.experiment.runtimes import formats_ruled_out
from tests.kit.commands import outcome
from tests.kit.project import ROOT


def raw_experiment(hidden_size: int, align: object) -> dict[str, Any]:
    raw: dict[str, Any] = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    raw["models"]["tiny"]["pretrain"] |= {"hidden_size": hidden_size, "heads": 8}
    raw["pat"]["align"] = align
    return raw | {"methods": {"lora": None, "pat": None, "channel-magnitude-pft": None}, "ratios": [0.25, 0.5], "tables": {}, "figures": []}


def notes(hidden_size: int, align: object) -> list[str]:
    return list(formats_ruled_out(load_experiment(raw_experiment(hidden_size, align), "x.yaml")))


@pytest.mark.parametrize(
    ("width", "word"), [(432, "no int4 and no quantised GGUF"), (2880, "no k-quants"), (288, "no k-quants"), (3072, None)]
)
def test_what_a_width_rules_out(width: int, word: str | None) -> None:
    said = ruled_out(width)
    assert (said is None) if word is None else (said or "").startswith(word)


def test_each_width_is_told_once() -> None:
    found = notes(576, 8)
    assert [sentence.partition(":")[0] for sentence in found] == ["models.tiny", "models.tiny"]
    assert "width 432 (ratio 0.25): no int4" in found[0] and "no multiple of 32" in found[0]
    assert "width 288 (ratio 0.5): no k-quants" in found[1] and "no multiple of 256" in found[1]


def test_aligned_for_gguf_nothing_is_ruled_out() -> None:
    experiment = load_experiment(raw_experiment(1024, "gguf"), "x.yaml")
    assert experiment.tune_job("tiny", "pat").pat.align == 256
    assert notes(1024, "gguf") == notes(1024, 256) == []


def test_validate_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(raw_experiment(576, 8)))
    code, said = outcome(["validate", str(tmp_path / "x.yaml")], capsys)
    assert code == 0 and "note: models.tiny: width 432 (ratio 0.25): no int4 and no quantised GGUF" in said


def test_the_name_is_its_number_everywhere() -> None:
    assert PatConfig(pruning_ratio=0.25, align="gguf").align == 256  # type: ignore[arg-type]
    with pytest.raises(UserError, match="--align 'q8': must be 'auto', 'gguf' or a positive whole number"):
        app(["prune", "--base", "b", "--pruner", "p", "--ratio", "0.25", "--out", "o", "--align", "q8"], standalone_mode=False)
    with pytest.raises(ValueError, match="align"):
        PatConfig(pruning_ratio=0.25, align="k-quants")  # type: ignore[arg-type]
