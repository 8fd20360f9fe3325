"""Calibration on instructions alone is told before a run, where nothing says that it is meant."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from study.experiment.calibration import instructions_alone
from study.experiment.file import load_experiment
from tests.kit.project import ROOT


def told(methods: dict[str, Any], **data: Any) -> list[str]:
    raw = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    kept = {key: value for key, value in raw["data"].items() if key not in ("pretrain", "calibration")}
    models = {"far": {"hub": {"id": "some/model"}}}
    return list(
        instructions_alone(load_experiment(raw | {"models": models, "methods": methods, "data": kept | data, "tables": {}}, "x.yaml"))
    )


REFITTED = {"mask": "variance", "closing": "at-once", "readers": "least-squares", "hio_rank": 0}


@pytest.mark.parametrize(
    "methods",
    [
        {"slicegpt-pft": None},
        {"lora": None, "pat-g": None},
        {"pat": {"pat": {"basis": "pca", "mask": "leading"}}},
        {"pat": {"pat": REFITTED}},
    ],
)
def test_rows_that_measure_on_instructions_alone_are_told(methods: dict[str, Any]) -> None:
    [sentence] = told(methods)
    assert sentence.startswith(f"methods.{list(methods)[-1]}: without data.pretrain") and "data.calibration: instruct" in sentence


def test_of_several_rows_one_is_named() -> None:
    [sentence] = told({"slicegpt-pft": None, "pat-g": None})
    assert sentence.startswith("methods.slicegpt-pft and others: ")


def test_what_is_meant_and_what_measures_nothing_is_not_told() -> None:
    assert told({"slicegpt-pft": None}, calibration="instruct") == []
    assert told({"slicegpt-pft": None}, pretrain={"source": "world"}) == []
    assert told({"lora": None, "pat": None, "channel-magnitude-pft": None}) == []
