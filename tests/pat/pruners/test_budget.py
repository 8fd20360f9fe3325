"""Budgets in place of ratios: what is written keeps within them, and the next larger size would not."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from pat.checkpoints import checkpoint
from pat.checkpoints.budget import counted
from pat.errors import SettingError
from pat.io.artefacts import read_json
from pat.models.budget import parameters_at, width_within
from pat.models.width import merged_config, target_width
from pat.pruners import PRUNERS
from pat.settings.budget import Budget
from pat.settings.fields import GIB
from tests.kit.commands import outcome, run
from tests.kit.pruning_inputs import write_base, write_text
from tests.kit.tiny_models import CONFIGS, MORE
from tests.kit.tiny_world import write_world


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("budget")
    write_base("llama-grouped", folder / "base")
    write_text(folder / "text.jsonl")
    return folder / "base"


@pytest.mark.parametrize("name", [*CONFIGS, *MORE])
def test_a_narrower_model_has_as_many_parameters_as_counted(name: str, tmp_path: Path) -> None:
    """Against what transformers makes of the narrower config, of every family, with biases, experts and tied heads."""
    write_base(name, tmp_path)
    model, _ = counted(tmp_path)
    config = checkpoint.load_config(tmp_path)
    fit = width_within(model, model.parameters * 7 // 10, 1)
    width = target_width(model.hidden_size, model.heads, fit.ratio, 1)
    narrower = AutoModelForCausalLM.from_config(merged_config(config, width))
    assert sum(parameter.numel() for parameter in narrower.parameters()) == fit.parameters <= model.parameters * 7 // 10
    assert parameters_at(model, width + model.heads) > model.parameters * 7 // 10
    assert parameters_at(model, model.hidden_size) == model.parameters == checkpoint.parameter_counts(tmp_path, config)["unique"]


def test_a_head_taken_off_the_embedding_is_counted(tmp_path: Path) -> None:
    write_base("llama-grouped-tied", tmp_path)
    model, _ = counted(tmp_path)
    assert parameters_at(model, 32, untied=True) == parameters_at(model, 32) + model.vocab_size * 32


@pytest.mark.parametrize("size", ["matched", "nominal"])
@pytest.mark.parametrize("pruner", sorted(PRUNERS))
def test_every_pruner_keeps_within_the_budget(
    pruner: str, size: str, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if size == "nominal" and "size" not in PRUNERS[pruner].settings:
        pytest.skip("has one knob alone")
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    whole = counted(base)[0].parameters
    allowed = whole * 7 // 10
    text = ["--calibration", str(base.parent / "text.jsonl"), "--calibration-tokens", "300"]
    settings = json.dumps({"size": size} if "size" in PRUNERS[pruner].settings else {})
    arguments = ["prune", "--base", str(base), "--pruner", pruner, "--settings", settings, *text, "--out", str(tmp_path / "out")]
    code, said = outcome([*arguments, "--budget-parameters", str(allowed)], capsys)
    assert code == 0, said
    assert f"budget parameters {allowed:g}: ratio " in said and f"of {whole:,} parameters stay at most" in said
    left = read_json(tmp_path / "out" / "prune.json")["parameters"]["after"]["unique"]
    assert whole / 3 < left <= allowed
    told = int(said.split(" parameters stay at most")[0].split(": ")[-1].split(" of ")[0].replace(",", ""))
    assert left <= told <= allowed


@pytest.mark.lengthy
def test_a_tuning_keeps_within_memory(tmp_path: Path) -> None:
    world, data = write_world(tmp_path)
    model, bytes_each = counted(world)
    gib = 0.8 * model.parameters * bytes_each / GIB
    job = json.dumps({"tuning": {"max_steps": 6, "learning_rate": 1e-3, "batch_size": 2, "lora": {"rank": 2}}, "pat": {"hio_rank": 2}})
    common = ["--base", str(world), "--settings", job, "--run-dir", str(tmp_path / "run"), "--data", str(data)]
    adapter, merged = str(tmp_path / "adapter"), tmp_path / "merged"
    for arguments in (
        ["tune", *common, "--tuner", "pat", "--budget-memory-gib", str(gib), "--out", adapter],
        ["merge", "--base", str(world), "--adapter", adapter, "--out", str(merged)],
    ):
        with pytest.raises(SystemExit) as ended:
            run(arguments)
        assert not ended.value.code
    left = checkpoint.parameter_counts(merged, checkpoint.load_config(merged))["unique"]
    assert 0.5 * gib < left * bytes_each / GIB <= gib


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--ratio", "0.5", "--budget-parameters", "0.5"], "give one of --ratio, --budget-parameters and --budget-memory-gib"),
        (["--budget-parameters", "0.5", "--budget-memory-gib", "1"], "give one of --ratio"),
        ([], "one of --ratio, --budget-parameters and --budget-memory-gib is needed"),
        (["--budget-parameters", "1e9"], "which is within it already; ask for less"),
        (["--budget-memory-gib", "4"], "GiB, which is within it already"),
        (["--budget-parameters", "10"], "budget of 10 parameters: at the smallest width"),
        (
            ["--align", "gguf", "--budget-parameters", "0.5"],
            "budget parameters 0.5: align=256: widths are multiples of 256, and hidden_size=",
        ),
        (["--pruner", "wanda-sp", "--budget-parameters", "0.1"], "budget parameters 0.1: ratio 0.9"),
        (["--budget-parameters", "-3"], "--budget-parameters -3.0: must be greater than 0"),
    ],
)
def test_a_budget_that_cannot_be_is_one_sentence(
    options: list[str], named: str, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["prune", "--base", str(base), "--pruner", "channel-magnitude", *options, "--out", str(tmp_path / "out")]
    code, said = outcome(arguments, capsys)
    assert code == 1 and named in said and not (tmp_path / "out").exists()


def test_a_share_is_of_the_models_parameters_and_memory_by_their_bytes() -> None:
    assert Budget(parameters=0.5).allowed(1000, 4) == Budget(parameters=500).allowed(1000, 4) == 500
    assert Budget(memory_gib=500 * 2 / GIB).allowed(1000, 2) == 500
    with pytest.raises(SettingError, match="within it already"):
        Budget(parameters=1000).allowed(1000, 4)


def test_a_tuner_that_prunes_nothing_takes_no_budget(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, rows = write_world(tmp_path)
    arguments = ["tune", "--base", str(base), "--data", str(rows), "--tuner", "lora", "--budget-parameters", "0.5"]
    job = json.dumps({"tuning": {"epochs": 1, "batch_size": 2, "learning_rate": 0.1}})
    code, said = outcome([*arguments, "--settings", job, "--run-dir", str(tmp_path / "run"), "--out", str(tmp_path / "out")], capsys)
    assert code == 1 and "--budget-parameters with --tuner lora: only pat" in said and not (tmp_path / "out").exists()
