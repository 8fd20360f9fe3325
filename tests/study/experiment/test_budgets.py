"""Budgets among an experiment's ratios: one level for all rows of a model, the ratio that each row's commands get, and what is told."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from pat.models.on_paper import PaperModel
from pat.models.width import target_width
from study.experiment.file import load_experiment
from study.experiment.schema import Experiment
from study.experiment.validate import validate
from study.plan.jobs import Plan
from study.results.explain import _budget
from tests.kit.experiments import changed, refusal
from tests.kit.tiny_checkpoint import write_tiny_checkpoint

BUDGETS: list[Any] = [0.5, {"parameters": 0.7}]


def experiment(**fields: object) -> Experiment:
    return load_experiment(changed("ratios", value=BUDGETS) | fields, "x.yaml")


def cell(model: str, row: str, ratio: float) -> Any:
    return SimpleNamespace(model=model, row=row, ratio=f"{ratio:g}", seed="0")


def test_a_budget_stands_as_the_share_that_goes_and_each_row_gets_its_own_ratio() -> None:
    found = experiment()
    assert found.ratios_of("tiny", "pat") == (0.5, 0.3)
    assert "tiny/pat/0.3/seed0" in {str(each.path) for each in found.cells()}
    plan, whole = Plan(found), PaperModel.of(found.models["tiny"].pretrain)
    asked = float(plan.tunings.ratio(cell("tiny", "pat", 0.3)))
    width = target_width(32, 2, asked, 1)
    narrower, wider = (PaperModel.of(found.models["tiny"].pretrain, each).parameters for each in (width, width + 2))
    assert narrower <= 0.7 * whole.parameters < wider
    assert plan.tunings.ratio(cell("tiny", "pat", 0.5)) == "0.5"
    assert plan.tunings.asked_ratio(cell("tiny", "channel-magnitude-pft", 0.3)) == f"{asked:g}"


def test_a_cell_says_which_budget_it_is_and_explain_says_it_too() -> None:
    plan = Plan(experiment())
    identity = yaml.safe_load(plan.cells.identity(cell("tiny", "pat", 0.3)))
    assert identity["ratio_requested"] == 0.3 and identity["budget"]["parameters"] == 0.7
    assert "budget" not in yaml.safe_load(plan.cells.identity(cell("tiny", "pat", 0.5)))
    assert _budget(identity)[0].startswith("  budget parameters 0.7: stands at 0.3, its steps were asked for 0.")


def test_a_refitted_base_gets_the_ratio_of_the_rows_that_share_it() -> None:
    found = experiment()
    plan = Plan(found)
    wildcards: Any = SimpleNamespace(model="tiny", basis="gradient", mask="leading", align="1", ratio="0.3", seed="0")
    assert plan.bases.refitting_ratio(wildcards) == plan.tunings.ratio(cell("tiny", "pat-g", 0.3))


def test_an_absolute_budget_has_a_level_a_model() -> None:
    pretrain = experiment().models["tiny"].model_dump(mode="json")["pretrain"]
    wide = pretrain | {"hidden_size": 48}
    sizes = {name: PaperModel.of(SimpleNamespace(**each)).parameters for name, each in (("small", pretrain), ("wide", wide))}
    budget = {"parameters": sizes["small"] * 0.9}
    found = experiment(models={"small": {"pretrain": pretrain}, "wide": {"pretrain": wide}}, ratios=[budget])
    levels = {model: found.ratios_of(model, "pat") for model in ("small", "wide")}
    assert levels["small"] == (0.1,) and 0.4 < levels["wide"][0] < 0.5
    paths = {str(each.path) for each in found.cells() if each.row == "pat"}
    assert paths == {"small/pat/0.1/seed0", f"wide/pat/{levels['wide'][0]:g}/seed0"}


def test_validate_tells_each_size_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(changed("ratios", value=BUDGETS)))
    cells, told = validate(tmp_path / "x.yaml")
    assert "tiny/pat/0.3/seed0" in cells
    assert any("methods.pat, models.tiny: budget parameters 0.7 stands at 0.3: width " in line for line in told)
    units = changed("methods", value={"lora": None, "wanda-sp-pft": None}) | {"ratios": [{"parameters": 0.9}]}
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(units))
    assert any("groups of heads" in line and "neurons" in line for line in validate(tmp_path / "x.yaml")[1])


def test_what_is_measured_takes_budgets_and_validate_tells_their_widths(tmp_path: Path) -> None:
    shape = {"vocab_size": 97, "hidden_size": 64, "layers": 2, "heads": 4, "intermediate_size": 80}
    block = {
        "shapes": {"small": shape},
        "inference": {"ratios": [{"parameters": 0.6}], "align": 1},
        "tuning": {"ratio": {"memory_gib": 4e-5}, "pat": {"hio_rank": 4}},
    }
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(changed("benchmark", value=block)))
    told = "\n".join(validate(tmp_path / "x.yaml")[1])
    assert "benchmark, shape small: inference: budget parameters 0.6: width 36 of 64" in told
    assert "benchmark, shape small: tuning: budget memory_gib 4e-05: width " in told
    settings = json.loads(Plan(experiment(benchmark=block)).benchmarks.settings("inference"))
    assert settings["ratios"] == [{"parameters": 0.6}]
    block["tuning"] = {"ratio": {"parameters": 1e9}}
    assert any(
        "benchmark.tuning.ratio: budget parameters 1e+09: the model has" in line and "(shape small)" in line
        for line in refusal(changed("benchmark", value=block))
    )


def test_a_model_on_the_disk_is_counted_by_its_tensors(tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path / "base")
    found = experiment(models={"mine": {"path": str(tmp_path / "base")}}, ratios=[{"memory_gib": 1e-4}])
    assert 0 < found.ratios_of("mine", "pat")[0] < 1


def test_a_model_in_the_hubs_cache_is_counted_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--some--model"
    base = write_tiny_checkpoint(folder / "snapshots" / "abc")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    cached = experiment(models={"far": {"hub": {"id": "some/model"}}}, ratios=[{"parameters": 0.6}])
    here = experiment(models={"far": {"path": str(base)}}, ratios=[{"parameters": 0.6}])
    assert cached.ratios_of("far", "pat") == here.ratios_of("far", "pat") == (0.4,)
    assert cached.ratio_for("far", "pat", 0.4) == here.ratio_for("far", "pat", 0.4)


def test_budgets_that_cannot_be_are_told_with_row_and_model() -> None:
    hub = changed("models", value={"far": {"hub": {"id": "some/model"}}}) | {"ratios": BUDGETS}
    assert any("models.far.hub: its sizes are not known before it is in the hub's cache" in line for line in refusal(hub))
    assert any("is within it already" in line for line in refusal(changed("ratios", value=[{"parameters": 1e9}])))
    assert any("at the smallest width" in line for line in refusal(changed("ratios", value=[{"parameters": 50}])))
    twice = refusal(changed("ratios", value=[{"parameters": 0.49}, {"parameters": 0.48}]))
    assert any("parameters 0.49 and parameters 0.48 both come to width 14 of 32; keep one" in line for line in twice)
    assert any("0.3 and parameters 0.7 both come to 0.3" in line for line in refusal(changed("ratios", value=[0.3, {"parameters": 0.7}])))
    assert any("give exactly one of" in line for line in refusal(changed("ratios", value=[{"parameters": 0.5, "memory_gib": 1}])))
    units = changed("methods", value={"lora": None, "wanda-sp-pft": None}) | {"ratios": [{"parameters": 0.1}]}
    assert any("wanda-sp-pft, models.tiny: ratios: budget parameters 0.1: ratio 0.9" in line for line in refusal(units))
    row = changed("methods", value={"lora": None, "pat": {"ratios": [{"parameters": 0.6}]}}) | {"ratios": BUDGETS}
    assert any("methods.pat.ratios" in line and "must be among" in line for line in refusal(row))
