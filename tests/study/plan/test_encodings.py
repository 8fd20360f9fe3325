"""Which tunings read which encoded instruction set: one for each model and length of rows, and none where a cell was made without."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from pat.io.artefacts import write_json
from study.experiment.file import load_experiment
from study.plan.jobs import Plan
from tests.kit.project import ROOT


def plan(**rows: Any) -> Plan:
    raw = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    return Plan(load_experiment(raw | {"methods": {"lora": None, "pat": None, "channel-magnitude-ftpft": None} | rows}, "x.yaml"))


def job(row: str, ratio: str = "0.5", seed: str = "0") -> Any:
    return SimpleNamespace(model="tiny", row=row, ratio=ratio, seed=seed)


def test_rows_share_an_encoding_but_where_their_own_are_longer_or_shorter() -> None:
    short = plan(pat={"tuning": {"max_length": 40}})
    usual = short.experiment.tune_job("tiny", "lora").tuning.max_length
    encoded = f"results/smoke/encoded/tiny/{usual}/manifest.json"
    for found in (job("lora", "0"), job("channel-magnitude-ftpft", "before"), job("channel-magnitude-ftpft")):
        assert short.encodings.for_tuning(found) == [encoded]
    assert (
        short.encodings.for_tuning(job("pat")) == short.encodings.for_search(job("pat")) == ["results/smoke/encoded/tiny/40/manifest.json"]
    )
    assert set(short.encodings.lengths()) == {str(usual), "40"}
    given: Any = SimpleNamespace(encoded=[encoded])
    assert short.encodings.option(job("lora"), given) == f"--encoded results/smoke/encoded/tiny/{usual}"
    given.encoded = []
    assert short.encodings.option(job("lora"), given) == ""


def test_what_was_made_without_an_encoding_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another input would make it again. A cell that is not there, or whose record is broken, is to be made, with one."""
    monkeypatch.chdir(tmp_path)
    ours = plan()
    cell = Path("results/smoke/checkpoints/tiny/pat/0.5/seed0/adapter/tuning.json")
    usual = ours.encodings.for_tuning(job("pat"))
    write_json(cell, {"provenance": {"inputs": {"base": {}, "data": {}}}})
    assert ours.encodings.for_tuning(job("pat")) == ours.encodings.for_search(job("pat")) == []
    assert ours.encodings.for_tuning(job("pat", seed="1")) == ours.encodings.for_tuning(job("lora")) == usual
    rate = Path("results/smoke/checkpoints/tiny/pat/0.5/rate.json")
    write_json(rate, {"provenance": {"inputs": {"encoded": {}}}})
    assert ours.encodings.for_search(job("pat")) == usual
    write_json(cell, {"provenance": {"inputs": {"base": {}, "data": {}, "encoded": {}}}})
    assert ours.encodings.for_tuning(job("pat")) == usual
    write_json(rate, {"provenance": {"inputs": {"data": {}}}})
    assert ours.encodings.for_search(job("pat")) == []
    cell.write_text("{")
    assert ours.encodings.for_tuning(job("pat")) == usual
