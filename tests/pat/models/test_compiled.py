"""When a tuning compiles its layers, and that it says why where it does not."""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedConfig

from pat.models.compiled import PAYS_FROM_STEPS, compile_layers, compiles, is_compiled
from pat.models.reshaped import ReshapedConfig
from pat.settings.jobs import TuneJob, TuningSettings
from pat.training.request import TuningRequest
from tests.kit.tiny_models import tiny_model
from tests.kit.tuning_requests import asked

SHAPE = LlamaConfig(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, vocab_size=64)
UNEVEN = ReshapedConfig.of(SHAPE, groups=[3, 4], neurons=[48, 48])


def request(
    folder: Path, *, config: PreTrainedConfig = SHAPE, device: str = "cuda", steps: int = PAYS_FROM_STEPS, choice: bool | str = "auto"
) -> TuningRequest:
    """Return the request for a tuning with LoRA of a model of this config."""
    config.save_pretrained(folder)
    tuning = {"max_steps": steps, "learning_rate": 1e-3, "batch_size": 2, "device": device, "compile": choice}
    return asked(folder, folder / "rows", "lora", 0.0, 0, TuneJob.model_validate({"tuning": tuning}), folder / "run")


@pytest.fixture
def _a_machine_that_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if name == "gcc" else None)


@pytest.mark.usefixtures("_a_machine_that_can")
def test_a_long_run_on_a_gpu_compiles(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        assert compiles(request(tmp_path))
    assert not caplog.messages


@pytest.mark.usefixtures("_a_machine_that_can")
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"device": "cpu"}, "that is for a GPU"),
        ({"config": UNEVEN}, "they differ in size, and each would be built by itself"),
        ({"steps": PAYS_FROM_STEPS - 1}, "with 999 steps it would cost more than it gains; it pays from some 1000 on"),
    ],
)
def test_what_does_not_compile_by_itself_says_why(
    changes: dict[str, Any], reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        assert not compiles(request(tmp_path, **changes))
        assert caplog.messages == [f"tune: the layers are not compiled: {reason}"]
        assert compiles(request(tmp_path, choice=True, **changes)) and not compiles(request(tmp_path, choice=False, **changes))
    assert len(caplog.messages) == 1


@pytest.mark.usefixtures("_a_machine_that_can")
def test_a_base_in_shards_does_not_compile_by_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pat.machine.processes.count", lambda: 2)
    asked_for = request(tmp_path)
    in_shards = replace(asked_for, job=TuneJob(tuning=asked_for.tuning.model_copy(update={"shard": True})))
    with caplog.at_level("INFO"):
        assert compiles(asked_for) and not compiles(in_shards)
    assert caplog.messages == ["tune: the layers are not compiled: the base is in shards"]


@pytest.mark.usefixtures("_a_machine_that_can")
def test_a_machine_that_cannot_build_says_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        monkeypatch.setattr(shutil, "which", lambda _: None)
        assert not compiles(request(tmp_path))
        monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
        assert not compiles(request(tmp_path))
    assert "none of cc, gcc, clang" in caplog.messages[0] and "triton is not installed" in caplog.messages[1]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    ("groups", "neurons", "widths"),
    [
        ([4, 4], [48, 48], None), ([3, 3], [40, 40], None), ([3, 4], [48, 48], None), ([4, 4], [40, 48], None),
        ([4, 4], [48, 48], [24] * 5), ([4, 4], [48, 48], [24, 24, 24, 24, 32]), ([4, 4], [48, 48], [24, 28, 24, 28, 24]),
    ],
)  # fmt: skip
def test_the_config_tells_whether_layers_are_alike(groups: list[int], neurons: list[int], widths: list[int] | None, tied: bool) -> None:
    stock = LlamaConfig(**SHAPE.to_dict() | {"tie_word_embeddings": tied})
    config = ReshapedConfig.of(stock, groups, neurons, widths)
    with torch.device("meta"):
        layers: Any = AutoModelForCausalLM.from_config(config).model.layers
    assert config.layers_alike == (len({tuple(weight.shape for weight in layer.parameters()) for layer in layers}) == 1)


def test_a_model_whose_layers_were_compiled_is_known() -> None:
    one, other = tiny_model("llama"), tiny_model("llama")
    compile_layers(one)
    assert is_compiled(one) and not is_compiled(other)


@pytest.mark.parametrize(
    ("length", "rows", "steps"),
    [({"max_steps": 7}, 1000, 7), ({"epochs": 1.5}, 33, 14), ({"epochs": 2.0}, 32, 16), ({"epochs": 1.0}, 1, 1)],
)
def test_steps_follow_the_recipes_length(length: dict[str, Any], rows: int, steps: int) -> None:
    assert TuningSettings.model_validate({"learning_rate": 1e-3, "batch_size": 4, **length}).steps_for(rows) == steps
