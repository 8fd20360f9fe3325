"""When a tuning compiles its layers, and that it says why where it does not."""

from __future__ import annotations

import importlib.util
import shutil
from typing import Any

import pytest
from tiny_models import tiny_model
from transformers import AutoModelForCausalLM, LlamaConfig

from pat.compiled import PAYS_FROM_STEPS, compile_layers, compiles, is_compiled
from pat.reshaped import ReshapedConfig
from pat.settings import TuningSettings

STOCK = tiny_model("llama")
SHAPE = LlamaConfig(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, vocab_size=64)
UNEVEN = AutoModelForCausalLM.from_config(ReshapedConfig.of(SHAPE, groups=[3, 4], neurons=[48, 48]))


@pytest.fixture
def _a_machine_that_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if name == "gcc" else None)


@pytest.mark.usefixtures("_a_machine_that_can")
def test_a_long_run_on_a_gpu_compiles(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        assert compiles("auto", STOCK, "cuda", PAYS_FROM_STEPS, sharded=False)
    assert not caplog.messages


@pytest.mark.usefixtures("_a_machine_that_can")
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"device": "cpu"}, "that is for a GPU"),
        ({"sharded": True}, "the base is in shards"),
        ({"stock": UNEVEN}, "they differ in size, and each would be built by itself"),
        ({"steps": PAYS_FROM_STEPS - 1}, "with 999 steps it would cost more than it gains; it pays from some 1000 on"),
    ],
)
def test_what_does_not_compile_by_itself_says_why(changes: dict[str, Any], reason: str, caplog: pytest.LogCaptureFixture) -> None:
    arguments: dict[str, Any] = {"stock": STOCK, "device": "cuda", "steps": PAYS_FROM_STEPS, "sharded": False} | changes
    with caplog.at_level("INFO"):
        assert not compiles("auto", **arguments)
        assert caplog.messages == [f"tune: the layers are not compiled: {reason}"]
        assert compiles(True, **arguments) and not compiles(False, **arguments)
    assert len(caplog.messages) == 1


@pytest.mark.usefixtures("_a_machine_that_can")
def test_a_machine_that_cannot_build_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        monkeypatch.setattr(shutil, "which", lambda _: None)
        assert not compiles("auto", STOCK, "cuda", PAYS_FROM_STEPS, sharded=False)
        monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
        assert not compiles("auto", STOCK, "cuda", PAYS_FROM_STEPS, sharded=False)
    assert "none of cc, gcc, clang" in caplog.messages[0] and "triton is not installed" in caplog.messages[1]


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
