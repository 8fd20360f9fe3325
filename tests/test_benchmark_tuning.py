"""`pat benchmark tune`: phases, counts and ratios are what the settings say. No timing is judged."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pat.benchmark import tuning
from pat.benchmark.settings import ModelShape, TuningBenchmark
from pat.benchmark.tuning import CLOSED, LORA, MASKED, OUT_OF_MEMORY, Phase, benchmark_tuning, phase_record, schedule_record, summary
from pat.settings import load

SHAPE = ModelShape(vocab_size=97, hidden_size=32, layers=2, heads=4, intermediate_size=48)
QUICK = load(
    TuningBenchmark,
    '{"batch_size": 2, "length": 8, "steps": 3, "warmup": 2, "rounds": 2, "lora_rank": 4, "pat_lora_rank": 2, "precision": "fp32",'
    ' "pat": {"hio_rank": 2}, "device": "cpu"}',
)


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("benchmark") / "tuning.json"
    benchmark_tuning(SHAPE, QUICK, 0, out)
    content: dict[str, Any] = json.loads(out.read_text())
    return content


def test_every_phase_has_its_steps_of_every_round(record: dict[str, Any]) -> None:
    assert [phase["name"] for phase in record["phases"]] == [LORA, MASKED, CLOSED]
    assert all(len(phase["step_s"]["samples"]) == QUICK.steps * QUICK.rounds for phase in record["phases"])


def test_trainable_parameters_follow_the_formula(record: dict[str, Any]) -> None:
    lora_a_rank = SHAPE.layers * (4 * 2 * 32 + 3 * (32 + 48))
    operators = (2 * SHAPE.layers + 1) * (2 * 32 * 2 + 2)
    lora, masked, closed = (phase["trainable_parameters"] for phase in record["phases"])
    assert lora == 4 * lora_a_rank
    assert masked == closed == 2 * lora_a_rank + operators + 32  # the proxy


def test_the_floor_is_four_operations_a_parameter_and_token(record: dict[str, Any]) -> None:
    assert record["tokens_per_step"] == 16
    assert record["parameters"] == 2 * 97 * 32 + 2 * (4 * 32 * 32 + 3 * 32 * 48 + 64) + 32
    assert record["floor_s"] == pytest.approx(4 * record["parameters"] * 16 / record["matmul_flops_per_s"])
    lora = record["phases"][0]
    assert lora["share_of_floor"] == pytest.approx(record["floor_s"] / lora["step_s"]["median"])
    assert lora["tokens_per_s"] == pytest.approx(16 / lora["step_s"]["median"])


def test_the_schedule_is_weighed_by_the_milestone() -> None:
    times = {LORA: (2.0, 100), MASKED: (3.0, 90), CLOSED: (1.5, 60)}
    phases = [phase_record(Phase(name, [step_s], [peak]), 10, 1.0) for name, (step_s, peak) in times.items()]
    schedule = schedule_record(phases, 1 / 3)
    assert schedule is not None
    assert (schedule["step_s"], schedule["of_lora"], schedule["peak_of_lora"]) == pytest.approx((2.0, 1.0, 0.9))


def test_the_milestone_lies_between_the_phases(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []
    whole = tuning.StepClock.on_step_begin

    def watched(self: Any, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        whole(self, args, state, control, model=model, **kwargs)
        closed.append(model.sparsifier.mask.closed)

    monkeypatch.setattr(tuning.StepClock, "on_step_begin", watched)
    phases = [Phase(MASKED), Phase(CLOSED)]
    tuning._run(phases, SHAPE, QUICK, 0, "cpu")
    assert closed == [False] * 5 + [True] * 5
    assert [len(phase.step_s) for phase in phases] == [3, 3]


def test_what_does_not_fit_is_recorded_and_the_rest_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tuning._run

    def small_device(arm: list[Phase], *arguments: Any) -> None:
        if len(arm) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        whole(arm, *arguments)

    monkeypatch.setattr(tuning, "_run", small_device)
    record = benchmark_tuning(SHAPE, QUICK.model_copy(update={"rounds": 1}), 0, tmp_path / "tuning.json")
    assert [phase["status"] for phase in record["phases"]] == [OUT_OF_MEMORY, "measured", "measured"]
    assert record["schedule"] is None
    assert next(iter(summary(record))) == f"lora: {OUT_OF_MEMORY}"


def test_rows_of_random_tokens_are_all_label() -> None:
    rows = tuning.RandomTokens(3, 5, 7, 0)
    assert len(rows) == 3 and torch.equal(rows[1]["labels"], rows[1]["input_ids"]) and int(rows.tokens_NT.max()) < 7


def test_a_step_belongs_to_the_phase_that_its_number_says() -> None:
    phases = [Phase("one"), Phase("two")]
    clock = tuning.StepClock(phases, 2, 3, "cpu")
    places = [clock._place(SimpleNamespace(global_step=step)) for step in range(10)]  # type: ignore[arg-type]
    assert [(phase.name, done) for phase, done in places] == [(name, done) for name in ("one", "two") for done in range(5)]
