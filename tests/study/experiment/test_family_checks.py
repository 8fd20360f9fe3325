"""What a model's family does not allow is told with the experiment file: of models that are made here, and of those on the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pat.errors import UserError
from pat.settings.budget import Budget
from study.experiment.checks.disk import disk_problems
from study.experiment.file import load_experiment
from tests.kit.project import ROOT
from tests.kit.pruning_inputs import write_base


def smoke(methods: dict[str, Any], **model: Any) -> dict[str, Any]:
    raw: dict[str, Any] = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    raw["methods"] = methods
    source = raw["models"]["tiny"]
    raw["models"]["tiny"] = model or {"pretrain": source["pretrain"] | {"family": "gemma2"}}
    return raw


@pytest.mark.parametrize("row", ["slicegpt-pft", "slicegpt-1q-pft", "pat-g"])
def test_a_rotation_of_a_family_with_a_norm_behind_its_writes(row: str) -> None:
    what = "pat.basis" if row == "pat-g" else f"the pruner {row.removesuffix('-pft')!r}"
    said = rf"methods\.{row}, models\.tiny: {what} is not possible for a model of the family 'gemma2': .*norm.*keep the native basis"
    with pytest.raises(UserError, match=said):
        load_experiment(smoke({"lora": None, row: None}), "own.yaml")


def test_what_does_not_rotate_is_taken() -> None:
    rows = ("lora", "pat", "channel-magnitude-pft")
    assert load_experiment(smoke(dict.fromkeys(rows)), "own.yaml").models["tiny"].pretrain is not None


def test_writers_that_norms_stand_behind() -> None:
    row = "channel-magnitude-pft"
    told = rf"methods\.{row}, models\.tiny: prune\.writers: refitted is not possible for a model of the family 'gemma2': norms stand"
    with pytest.raises(UserError, match=told):
        load_experiment(smoke({"lora": None, row: {"prune": {"writers": "refitted"}}}), "own.yaml")
    for left_plain in ({row: {"prune": {"writers": "plain"}}}, {"layers-and-neurons-pft": None}):
        assert load_experiment(smoke({"lora": None, **left_plain}) | {"ratios": [0.25]}, "own.yaml").methods


def test_layers_of_two_sizes_under_fused_projections() -> None:
    raw = smoke({"lora": None, "llm-pruner-pft": None})
    raw["models"]["tiny"]["pretrain"]["family"] = "phi3"
    with pytest.raises(
        UserError, match=r"the pruner 'llm-pruner' is not possible for a model of the family 'phi3': self_attn\.qkv_proj is"
    ):
        load_experiment(raw, "own.yaml")


def test_of_a_model_on_the_disk_it_is_told_too(tmp_path: Path) -> None:
    write_base("olmo2", tmp_path / "base")
    raw = smoke({"lora": None, "pat": {"pat": {"basis": "pca"}}, "slicegpt-pft": None}, path=str(tmp_path / "base"))
    found = disk_problems(load_experiment(raw, "own.yaml"))
    assert [problem.partition(" is not possible")[0] for problem in found if "not possible" in problem] == [
        "methods.pat, models.tiny: pat.basis",
        "methods.slicegpt-pft, models.tiny: the pruner 'slicegpt'",
    ]


@pytest.mark.parametrize("name", ["opt", "pythia"])
def test_rows_that_would_narrow_a_family_of_a_fixed_width_are_told_and_the_others_keep_within_a_budget(name: str, tmp_path: Path) -> None:
    write_base(name, tmp_path / "base")
    rows = dict.fromkeys(("lora", "pat", "pat-g", "channel-magnitude-pft", "slicegpt-1q-pft", "layers-and-neurons-pft", "shortgpt-pft"))
    raw = smoke(rows, path=str(tmp_path / "base"))
    found = [problem for problem in disk_problems(load_experiment(raw, "own.yaml")) if "not possible" in problem]
    assert [problem.partition(" is not possible")[0] for problem in found] == [
        "methods.pat, models.tiny: pruning while tuning",
        "methods.pat-g, models.tiny: pruning while tuning",
        "methods.channel-magnitude-pft, models.tiny: the pruner 'channel-magnitude'",
        "methods.slicegpt-1q-pft, models.tiny: the pruner 'slicegpt-1q'",
    ]
    *of_width, of_basis = found
    assert all("no heads of another size than hidden size / heads" in problem for problem in of_width)
    assert all(("pat import-model --path FOLDER --as phi" in problem) == (name == "pythia") for problem in of_width)
    assert "norms subtract the mean of all channels" in of_basis
    allowed = {row: None for row in rows if not any(f"methods.{row}," in problem for problem in found)}
    raw = smoke(allowed, path=str(tmp_path / "base")) | {"ratios": [{"parameters": 0.6}]}
    for key in ("tables", "figures"):
        raw.pop(key, None)
    experiment = load_experiment(raw, "own.yaml")
    fit = experiment.fit("tiny", "layers-and-neurons-pft", Budget(parameters=0.6))
    assert fit.parameters <= 0.6 * experiment.sizes_of("tiny")[0].parameters


def test_what_norms_that_subtract_a_mean_rule_out_is_told(tmp_path: Path) -> None:
    write_base("phi", tmp_path / "base")
    rows = {"pat": None, "pat-g": None, "channel-magnitude-pft": None, "own": {"method": "pat-g", "label": "x", "pat": {"basis": "native"}}}
    raw = smoke(rows, path=str(tmp_path / "base"))
    for key in ("tables", "figures"):
        raw.pop(key, None)
    found = [problem for problem in disk_problems(load_experiment(raw, "own.yaml")) if "not possible" in problem]
    assert [problem.partition(" is not possible")[0] for problem in found] == [
        "methods.pat-g, models.tiny: pat.readers: least-squares",
        "methods.pat-g, models.tiny: pat.basis",
        "methods.own, models.tiny: pat.readers: least-squares",
    ]


@pytest.mark.parametrize("name", ["opt", "qwen2-moe"])
def test_feed_forward_layers_without_a_module_of_their_own_cannot_be_recomputed_by_themselves(name: str, tmp_path: Path) -> None:
    """Of rows that tune, and of no others; what would be right is said."""
    write_base(name, tmp_path / "base")
    rows = dict.fromkeys(("base", "lora", "shortgpt-pft"))
    raw = smoke(rows, path=str(tmp_path / "base"))
    for key in ("tables", "figures"):
        raw.pop(key, None)
    raw["tuning"]["gradient_checkpointing"] = "feed-forward"
    found = [problem for problem in disk_problems(load_experiment(raw, "own.yaml")) if "not possible" in problem]
    assert [problem.partition(" is not possible")[0] for problem in found] == [
        "methods.lora, models.tiny: tuning.gradient_checkpointing: feed-forward",
        "methods.shortgpt-pft, models.tiny: tuning.gradient_checkpointing: feed-forward",
    ]
    assert all(problem.endswith("set true, which computes whole layers again") for problem in found)
    assert ("fc1, fc2" in found[0]) == (name == "opt")
    raw["tuning"]["gradient_checkpointing"] = True
    assert not [problem for problem in disk_problems(load_experiment(raw, "own.yaml")) if "not possible" in problem]


def test_a_value_that_recomputation_does_not_have_is_refused() -> None:
    raw = smoke({"lora": None})
    raw["tuning"]["gradient_checkpointing"] = "feed_forward"
    with pytest.raises(UserError, match=r"tuning\.gradient_checkpointing: .feed_forward. is not allowed: must be 'feed-forward'"):
        load_experiment(raw, "own.yaml")
