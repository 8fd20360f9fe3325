"""Rows of models to which nothing is done: the untouched base, and checkpoints that were made elsewhere."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import yaml

from pat.checkpoints.given_sizes import given_sizes
from pat.errors import UserError
from pat.io.artefacts import read_json, write_json, write_jsonl
from pat.pruners.pruning import prune
from study.experiment.file import load_experiment
from study.figures import accuracy as figures
from study.figures import memory as memory_figure
from study.figures import methods as methods_figure
from study.figures import perplexity as perplexity_figure
from study.figures import trainable as trainable_figure
from study.plan.jobs import Plan
from study.results.collect import joined
from study.tables import writing as tables
from tests.kit.cell_maker import cell, write_cell
from tests.kit.project import ROOT, planned
from tests.kit.tiny_checkpoint import write_tiny_checkpoint

FIGURES = (
    ("accuracy", figures.write_figures),
    ("methods", lambda paths, out: methods_figure.write_methods(paths, None, out)),
    ("perplexity", perplexity_figure.write_perplexity),
    ("trainable", lambda paths, out: trainable_figure.write_trainable(paths, None, out)),
    ("memory", lambda paths, out: memory_figure.write_memory(paths, [], out)),
)


def smoke(**rows: object) -> dict[str, Any]:
    raw: dict[str, Any] = deepcopy(yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text()))
    raw["seeds"] = [3, 4]
    raw["methods"] = {"lora": None, "pat": None, **rows}
    return raw


def wildcards(row: str, ratio: str = "0") -> Any:
    return SimpleNamespace(model="tiny", row=row, ratio=ratio, seed="3")


def test_the_base_is_one_cell_of_the_first_seed_and_is_scored_where_it_lies() -> None:
    experiment = load_experiment(smoke(base=None), "test")
    assert [str(one.path) for one in experiment.cells() if one.row == "base"] == ["tiny/base/0/seed3"]
    assert experiment.search_of("tiny", "base") is None
    assert not experiment.distils("base")
    plan = Plan(experiment)
    assert plan.cells.finished(wildcards("base")) == "results/smoke/models/tiny/manifest.json"
    assert plan.cells.finished(wildcards("lora")) == "results/smoke/checkpoints/tiny/lora/0/seed3/merged/manifest.json"
    assert "results/smoke/models/tiny/manifest.json" in plan.cells.merged_models()
    assert plan.cells.tuning_record(wildcards("base")) == ""
    assert plan.cells.sizes(wildcards("base")) == ["results/smoke/evaluation/tiny/base/0/seed3/sizes.json"]
    assert plan.cells.sizes(wildcards("lora")) == []


def test_a_checkpoint_stands_at_its_ratio_under_its_rows_name() -> None:
    experiment = load_experiment(smoke(theirs={"checkpoint": {"path": "elsewhere/model", "ratio": 0.3}}) | {"root": "data"}, "test")
    assert [str(one.path) for one in experiment.cells() if one.row == "theirs"] == ["tiny/theirs/0.3/seed3"]
    assert experiment.label("theirs") == "theirs"
    plan = Plan(experiment)
    assert plan.models.checkpoint_path(wildcards("theirs")) == "data/elsewhere/model"
    assert plan.cells.given_rows(made_elsewhere=True) == ["theirs"]
    assert plan.cells.finished(wildcards("theirs", "0.3")) == "results/smoke/checkpoints/tiny/theirs/0.3/seed3/merged/manifest.json"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"checkpoint": None}, "methods.checkpoint.checkpoint: is required"),
        ({"x": {"method": "checkpoint"}}, "methods.x.checkpoint: is required"),
        ({"x": {"method": "lora", "checkpoint": {"path": "a"}}}, "methods.x.checkpoint: has no effect on the method 'lora'"),
        ({"x": {"checkpoint": {"path": "a", "of": "tny"}}}, "methods.x.checkpoint.of: \"tny\" is not a model of the experiment; did you"),
        ({"x": {"checkpoint": {"path": "a", "ratio": 1}}}, "methods.x.checkpoint.ratio: 1"),
        ({"x": {"checkpoint": {}}}, "methods.x.checkpoint"),
        ({"base": {"lora": {"rank": 2}}}, "methods.base.lora: has no effect: nothing is tuned"),
        ({"base": {"ratios": [0.5]}}, "methods.base.ratios: has no effect"),
        ({"pat": {"ratios": [0.3]}}, r"methods.pat.ratios: [0.3] is not allowed: must be among the experiment's ratios, [0.5]"),
    ],
)  # fmt: skip
def test_mistakes_in_such_rows_are_told(rows: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as raised:
        load_experiment(smoke(**rows), "test")
    assert message in str(raised.value)


def test_of_several_models_a_checkpoint_names_one_and_is_run_on_that_alone() -> None:
    raw = smoke(theirs={"checkpoint": {"path": "a"}})
    raw["models"]["other"] = deepcopy(raw["models"]["tiny"])
    with pytest.raises(UserError, match=r"methods.theirs.checkpoint.of: is required: .*tiny, other"):
        load_experiment(raw, "test")
    raw["methods"]["theirs"]["checkpoint"]["of"] = "other"
    assert [one.model for one in load_experiment(raw, "test").cells() if one.row == "theirs"] == ["other"]


def test_a_row_runs_at_its_own_ratios() -> None:
    raw = smoke(**{"pat": {"ratios": [0.5]}, "channel-magnitude-pft": None}) | {"ratios": [0.25, 0.5]}
    experiment = load_experiment(raw, "test")
    assert experiment.ratios_of("tiny", "pat") == (0.5,)
    assert experiment.ratios_of("tiny", "channel-magnitude-pft") == (0.25, 0.5)


def test_sizes_are_counted_beside_the_base(tmp_path: Path) -> None:
    base = write_tiny_checkpoint(tmp_path / "base")
    prune(base, "channel-magnitude", 0.25, 8, tmp_path / "narrow")
    untouched = given_sizes(base, base, 0.0, tmp_path / "a.json")
    assert (untouched["ratio_effective"], untouched["logit_gap"]) == (0.0, None)
    narrow = given_sizes(base, tmp_path / "narrow", 0.25, tmp_path / "b.json")
    assert narrow["hidden_size"] == {"before": 32, "after": 24}
    assert narrow["ratio_effective"] == pytest.approx(0.25)
    assert narrow["parameters"]["after"]["unique"] < narrow["parameters"]["before"]["unique"]
    assert read_json(tmp_path / "b.json")["provenance"]["inputs"].keys() == {"base", "model"}
    fewer = write_tiny_checkpoint(tmp_path / "same-width")
    assert given_sizes(base, fewer, 0.0, tmp_path / "c.json")["ratio_effective"] == 0.0


def test_a_cell_of_such_a_model_has_no_tuning(tmp_path: Path) -> None:
    base = write_tiny_checkpoint(tmp_path / "base")
    given_sizes(base, base, 0.0, tmp_path / "sizes.json")
    write_json(tmp_path / "evaluation.json", {"tasks": {}, "mean": {}, "perplexity": {}, "harness": {}, "provenance": {}})
    write_jsonl(tmp_path / "samples.jsonl", [])
    found = joined({}, None, [tmp_path / "sizes.json"], tmp_path / "evaluation.json", tmp_path / "samples.jsonl")
    assert (found["tuning"], found["trainable_parameters"], found["logit_gap"]) == (None, 0, None)
    assert found["provenance"].keys() == {"sizes", "evaluate"}


def test_the_base_stands_in_every_table_and_figure(tmp_path: Path) -> None:
    untouched = cell("base", 0.0, logit_gap=None, tuning=None)
    theirs = cell("checkpoint", 0.25, tuning=None) | {"method": "theirs", "label": "theirs"}
    paths = [write_cell(tmp_path, one) for one in (untouched, theirs, cell("lora", 0.0), cell("pat"), cell("channel-magnitude-pft"))]
    out = tmp_path / "tables"
    for name in tables.write_tables(paths, out):
        if name != "cells" and "comparisons" not in name:
            text = (out / f"{name}.md").read_text()
            assert "Base, untouched" in text, name
            assert "theirs" in text, name
    for name, write in FIGURES:
        write(paths, tmp_path)
        assert {"base", "theirs", "lora", "pat"} <= set(pd.read_csv(tmp_path / f"{name}.csv")["method"]), name
        assert (tmp_path / f"{name}.png").stat().st_size > 0


def test_an_experiment_of_the_base_alone_is_planned(workflow_copy: Path) -> None:
    raw = smoke() | {"methods": {"base": None}, "ratios": []}
    jobs = planned(workflow_copy, raw)
    assert "count tiny, base" in jobs
    assert any(job.startswith("evaluate tiny, base") for job in jobs)
    assert not any(job.startswith(("tune", "merge", "prune")) for job in jobs)
