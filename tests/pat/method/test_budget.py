"""A budget in Python: `attach` and `prepare_base` solve it for their model, and say what it came to."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from pat import Budget, PatConfig, attach, prepare_base
from pat.checkpoints.budget import counted, width_ratio
from pat.data.calibration import Calibration
from pat.errors import SettingError, UserError
from pat.families.known import family_of
from pat.models.budget import parameters_at
from pat.models.on_paper import PaperModel
from pat.models.width import merged_config
from pat.pruners.pruning import prune
from pat.settings.fields import GIB
from tests.kit.pruning_inputs import write_base, write_text
from tests.kit.tiny_models import CONFIGS, MORE, tiny_model

CHOICES: dict[str, Any] = {"hio_rank": 0, "lora_rank": 2, "align": 1, "total_steps": 60}


@pytest.mark.parametrize("name", [*CONFIGS, *MORE])
def test_attach_keeps_as_many_channels_as_the_budget_allows(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Of every family, by the parameters of the stock class: what is kept is within the budget, and the next width is not."""
    stock = tiny_model(name)
    whole = stock.num_parameters()
    with caplog.at_level(logging.INFO, logger="pat"):
        model = attach(stock, PatConfig(**{"pruning_ratio": {"parameters": 0.7}} | CHOICES))
    step = model.config.num_attention_heads
    left, more = (
        AutoModelForCausalLM.from_config(merged_config(stock.config, width)).num_parameters() for width in (model.width, model.width + step)
    )
    assert left <= 0.7 * whole < more
    assert f"width {model.width} of {stock.config.hidden_size}: {left:,} of {whole:,} parameters stay at most" in caplog.text
    assert isinstance(model.pat_config.pruning_ratio, float)


def test_experts_in_memory_are_counted_as_in_their_files(tmp_path: Path) -> None:
    write_base("qwen3-moe", tmp_path)
    stock = tiny_model("qwen3-moe")
    assert family_of(stock.config).has_experts
    memory = PaperModel.of_config(stock.config, {name: tuple(it.shape) for name, it in stock.named_parameters()})
    width = stock.config.num_attention_heads
    assert parameters_at(memory, width) == parameters_at(counted(tmp_path)[0], width) < memory.parameters


def test_memory_is_counted_in_the_models_dtype() -> None:
    stock = tiny_model("llama")
    gib = 0.7 * stock.num_parameters() * 4 / GIB
    assert (
        attach(stock, PatConfig(pruning_ratio=Budget(memory_gib=gib), **CHOICES)).width
        == attach(tiny_model("llama"), PatConfig(pruning_ratio=Budget(parameters=0.7), **CHOICES)).width
    )
    with pytest.raises(SettingError, match="within it already"):
        attach(tiny_model("llama").bfloat16(), PatConfig(pruning_ratio=Budget(memory_gib=gib), **CHOICES))


def test_a_prepared_base_and_its_config_come_to_the_same_width(tmp_path: Path) -> None:
    write_base("llama-grouped", tmp_path / "base")
    text = write_text(tmp_path / "text.jsonl")
    budget = Budget(parameters=counted(tmp_path / "base")[0].parameters * 0.7)
    record = prepare_base(tmp_path / "base", budget, Calibration(text, 400), tmp_path / "prepared", align=1)
    model = attach(
        AutoModelForCausalLM.from_pretrained(tmp_path / "prepared"), PatConfig.pat_g(budget, lora_rank=2, align=1), kept=record["kept"]
    )
    assert model.width == len(record["kept"]) and record["pruning_ratio"] == model.pat_config.ratio


def test_a_prepared_base_settles_the_width_and_keeps_within_its_budget_or_says_so(tmp_path: Path) -> None:
    """A share is of the model at hand, which is larger once its head is off the embedding: the width that it was prepared for stays."""
    base, text = tmp_path / "base", write_text(tmp_path / "text.jsonl")
    write_base("llama-grouped-tied", base)
    record = prepare_base(base, Budget(parameters=0.7), Calibration(text, 400), tmp_path / "prepared", align=1, tie="break")
    width, prepared = len(record["kept"]), tmp_path / "prepared"
    assert width_ratio(prepared, Budget(parameters=0.7), 1) == record["pruning_ratio"]
    config = PatConfig.pat_g(Budget(parameters=0.7), lora_rank=2, align=1, tie="break")
    model = attach(AutoModelForCausalLM.from_pretrained(prepared), config, kept=record["kept"])
    assert (model.width, model.pat_config.ratio) == (width, record["pruning_ratio"])
    less = Budget(parameters=0.2)
    said = rf"budget parameters 0\.2: the readers are refitted to width {width} of 48, at which .* more than .*; refit them again"
    with pytest.raises(SettingError, match=said):
        width_ratio(prepared, less, 1)
    with pytest.raises(SettingError, match=said):
        attach(AutoModelForCausalLM.from_pretrained(prepared), config.changed(pruning_ratio=less), kept=record["kept"])


def test_a_pruner_is_given_one_too(tmp_path: Path) -> None:
    write_base("llama-grouped", tmp_path / "base")
    whole = counted(tmp_path / "base")[0].parameters
    record = prune(tmp_path / "base", "channel-magnitude", {"parameters": 0.7}, 1, tmp_path / "out")  # type: ignore[arg-type]
    assert record["parameters"]["after"]["unique"] <= 0.7 * whole


@pytest.mark.parametrize(
    ("budget", "choices", "message"),
    [
        ({"parameters": -1}, {}, r"PatConfig.pruning_ratio.parameters=-1: must be greater than 0"),
        ({"parameter": 1}, {}, "PatConfig.pruning_ratio: a budget has no field 'parameter'; did you mean 'parameters'"),
        ({}, {}, r"PatConfig.pruning_ratio.memory_gib=None: give exactly one of parameters and memory_gib"),
        ({"parameters": 0.5}, {"width": 8}, r"PatConfig.width=8 with the budget parameters 0.5: give one of the two"),
    ],
)
def test_a_mistake_in_it_is_one_sentence(budget: Any, choices: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        PatConfig(pruning_ratio=budget, **choices)


def test_it_has_no_ratio_before_it_is_solved_and_no_run_is_saved_with_it(tmp_path: Path) -> None:
    config = PatConfig(pruning_ratio=Budget(parameters=0.5))
    with pytest.raises(SettingError, match=r"the budget parameters 0\.5 is not solved yet"):
        config.ratio  # noqa: B018
    (tmp_path / "pat_config.json").write_text('{"pruning_ratio": {"parameters": 0.5}}')
    with pytest.raises(UserError, match="is not solved yet"):
        PatConfig.load(tmp_path)
