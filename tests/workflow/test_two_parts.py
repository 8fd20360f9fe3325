"""Tune, prune, tune in the finished smoke run: what it wrote is what the commands write by hand, and its records tell the whole way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pat.io.artefacts import read_json
from study.results.explain import explain
from tests.kit.commands import run
from tests.kit.project import ROOT, planned
from tests.kit.smoke_run import CONFIG, RESULTS

ROW = "channel-magnitude-ftpft"
MADE = RESULTS / "checkpoints" / "tiny" / ROW
WEIGHTS = "model.safetensors"
RAW: dict[str, Any] = yaml.safe_load((ROOT / CONFIG).read_text())


def call(*words: object) -> None:
    with pytest.raises(SystemExit) as ended:
        run([str(word) for word in words])
    assert not ended.value.code


def tuned(base: Path, data: Path, steps: int, order: int, out: Path) -> Path:
    """Tune by LoRA for so many steps and merge, by the commands; return the merged model."""
    settings = json.dumps({"tuning": RAW["tuning"] | {"max_steps": steps, "data_order": order}})
    adapter, merged = out / "adapter", out / "merged"
    given = ("--base", base, "--data", data, "--tuner", "lora", "--ratio", 0, "--seed", 0, "--settings", settings)
    call("tune", *given, "--run-dir", out / "run", "--out", adapter)
    call("merge", "--base", base, "--adapter", adapter, "--out", merged)
    return merged


def test_a_row_in_two_parts_is_what_the_commands_make_by_hand(finished: Path, tmp_path: Path) -> None:
    """The smoke run has 12 steps, of which a third lies before the cut."""
    base, data = finished / RESULTS / "models" / "tiny", finished / RESULTS / "data" / "world" / "instruct.jsonl"
    before, pruned = tuned(base, data, 4, 0, tmp_path / "before"), tmp_path / "pruned"
    call("prune", "--base", before, "--pruner", "channel-magnitude", "--ratio", 0.5, "--align", 1, "--seed", 0, "--out", pruned)
    after = tuned(pruned, data, 8, 1, tmp_path / "after")
    assert (after / WEIGHTS).read_bytes() == (finished / MADE / "0.5/seed0/merged" / WEIGHTS).read_bytes()
    assert (after / WEIGHTS).read_bytes() != (finished / str(MADE).replace("ftpft", "pft") / "0.5/seed0/merged" / WEIGHTS).read_bytes()


def test_its_records_count_both_parts_and_the_share_of_the_untouched_base(finished: Path) -> None:
    cell = read_json(finished / RESULTS / "evaluation" / "tiny" / ROW / "0.5/seed0/cell.json")
    untouched = read_json(finished / RESULTS / "evaluation/tiny/base/0/seed0/cell.json")["parameters"]["before"]
    assert (cell["tuning_before"]["steps"], cell["tuning"]["steps"]) == (4, 8)
    assert cell["trainable_parameters"] == cell["tuning_before"]["trainable_parameters"] > cell["tuning"]["trainable_parameters"]
    assert set(cell["provenance"]) == {"before/tune", "before/merge", "prune", "tune", "merge", "evaluate"}
    pruned = read_json(finished / MADE / "0.5/seed0/pruned/prune.json")
    assert pruned["base"]["parameters"] == cell["parameters"]["before"] == untouched
    assert pruned["removed"] == pytest.approx(1 - cell["parameters"]["after"]["unique"] / untouched["unique"])


def test_explain_leads_through_both_parts(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished)
    lines = explain(RESULTS, {"model": "tiny", "method": ROW, "ratio_requested": 0.5, "seed": 0}, "capitals")
    assert [line.partition(" ")[2] for line in lines if line[:1].isdigit()] == [
        f"pretrain: {RESULTS}/models/tiny/pretraining.json",
        f"encode: {RESULTS}/encoded/tiny/192/encoding.json",
        f"tune: {MADE}/before/seed0/adapter/tuning.json",
        f"merge: {MADE}/before/seed0/merged/merge.json",
        f"prune: {MADE}/0.5/seed0/pruned/prune.json",
        f"tune: {MADE}/0.5/seed0/adapter/tuning.json",
        f"merge: {MADE}/0.5/seed0/merged/merge.json",
        f"evaluate: {RESULTS}/evaluation/tiny/{ROW}/0.5/seed0/evaluation.json",
    ]


def test_a_further_ratio_needs_no_second_tuning_before_the_cut(finished: Path) -> None:
    """Nor is what was made at the first ratio made again; another seed has a part before the cut of its own."""
    jobs = {job for job in planned(finished, RAW | {"ratios": [0.25, 0.5]}) if ROW in job}
    assert {job for job in jobs if not job.startswith(("evaluate", "collect"))} == {
        f"prune tiny by {ROW}, ratio 0.25",
        f"tune tiny by {ROW}, ratio 0.25, seed 0",
        f"merge tiny, {ROW}, ratio 0.25, seed 0",
    }
    jobs = {job for job in planned(finished, RAW | {"ratios": [0.25, 0.5], "seeds": [0, 1]}) if ROW in job}
    assert {job for job in jobs if "before" in job} == {
        f"merge tiny, {ROW}, ratio before, seed 1",
        f"tune tiny by {ROW}, ratio before, seed 1",
    }
