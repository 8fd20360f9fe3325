"""`pat benchmark tune`: phases, counts and ratios are what the settings say. No timing is judged."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from pat.benchmark import tuning
from pat.benchmark.machine import OUT_OF_MEMORY
from pat.benchmark.settings import ModelShape, TuningBenchmark
from pat.benchmark.tuning import arms_of, batch_lengths, benchmark_tuning
from pat.benchmark.tuning_record import CLOSED, COMPACTED, LORA, MASKED, Phase, phase_record, schedule_records, summary
from pat.errors import UserError
from pat.models.on_paper import PaperModel
from pat.models.recomputed import recompute_feed_forward
from pat.models.width import target_width
from pat.settings.budget import Budget
from pat.settings.config import PatChoices
from pat.settings.mistakes import load

pytestmark = pytest.mark.lengthy

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


def test_a_budget_is_tuned_at_the_width_that_it_comes_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ratios: list[float] = []

    def seen(_stock: Any, arm: Any) -> None:
        ratios.append(arm.ratio)
        raise InterruptedError

    monkeypatch.setattr(tuning, "adapted", seen)
    settings = QUICK.model_copy(update={"ratio": Budget(parameters=0.7), "pat": PatChoices(hio_rank=2, align=1)})
    for arm in tuning.arms_of(settings):
        with pytest.raises(InterruptedError):
            tuning._run(arm, SHAPE, settings, 0, "cpu")
    unpruned, narrow = ratios
    width = target_width(SHAPE.hidden_size, SHAPE.heads, narrow, 1)
    left, more = (PaperModel.of(SHAPE, each).parameters for each in (width, width + SHAPE.heads))
    assert unpruned == 0 and left <= 0.7 * PaperModel.of(SHAPE).parameters < more
    with pytest.raises(UserError, match="within it already"):
        benchmark_tuning(SHAPE, settings.model_copy(update={"ratio": Budget(parameters=1e9)}), 0, tmp_path / "x.json")


def test_every_arm_recomputes_its_feed_forward_blocks_where_that_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def noted(stock: Any) -> None:
        recompute_feed_forward(stock)
        seen.append(stock)

    monkeypatch.setattr(tuning, "recompute_feed_forward", noted)
    settings = QUICK.model_copy(update={"gradient_checkpointing": "feed-forward", "rounds": 1, "uncompacted": False})
    found = benchmark_tuning(SHAPE, settings, 0, tmp_path / "tuning.json")
    assert len(seen) == 2 and found["provenance"]["settings"]["gradient_checkpointing"] == "feed-forward"
    with pytest.raises(
        UserError, match=r"gradient_checkpointing: feed-forward is not possible for a model of the family 'opt': .*set true"
    ):
        benchmark_tuning(SHAPE.model_copy(update={"family": "opt"}), settings, 0, tmp_path / "opt.json")


@pytest.mark.lengthy
def test_every_phase_has_its_steps_of_every_round(record: dict[str, Any]) -> None:
    assert [phase["name"] for phase in record["phases"]] == [LORA, MASKED, CLOSED, COMPACTED]
    assert all(len(phase["step_s"]["samples"]) == QUICK.steps * QUICK.rounds for phase in record["phases"])


def test_the_warm_up_of_every_round_is_timed_as_a_whole(record: dict[str, Any]) -> None:
    assert all(len(phase["warmup_s"]) == QUICK.rounds and min(phase["warmup_s"]) > 0 for phase in record["phases"])


@pytest.mark.lengthy
def test_batches_are_cut_to_the_same_lengths_in_every_phase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    whole = tuning.CutToLengths.__call__

    def watched(self: Any, rows: Any) -> dict[str, Tensor]:
        batch = whole(self, rows)
        seen.append(batch["input_ids"].shape[1])
        assert batch["labels"].shape == batch["input_ids"].shape
        return batch

    monkeypatch.setattr(tuning.CutToLengths, "__call__", watched)
    settings = QUICK.model_copy(update={"length": 40, "shortest": 9, "rounds": 1})
    found = benchmark_tuning(SHAPE, settings, 3, tmp_path / "tuning.json")
    lengths = batch_lengths(settings, 3)
    assert len(lengths) == 5 and len(set(lengths)) > 1 and all(9 <= length <= 40 for length in lengths)
    assert seen[:5] == lengths and seen[5:20] == 3 * lengths
    assert found["tokens_per_step"] == round(2 * sum(lengths[2:]) / 3)


def test_the_shortest_batch_is_not_longer_than_the_longest() -> None:
    with pytest.raises(UserError, match=r"shortest.*must not be more than length, which is 16"):
        load(TuningBenchmark, '{"length": 16, "shortest": 17}')


def test_trainable_parameters_follow_the_formula(record: dict[str, Any]) -> None:
    lora_a_rank = SHAPE.layers * (4 * 2 * 32 + 3 * (32 + 48))
    operators = (2 * SHAPE.layers + 1) * (2 * 32 * 2 + 2)
    lora, masked, closed, compacted = (phase["trainable_parameters"] for phase in record["phases"])
    assert lora == 4 * lora_a_rank
    assert masked == closed == compacted == 2 * lora_a_rank + operators + 32  # the proxy


def test_the_floor_is_four_operations_a_parameter_and_token(record: dict[str, Any]) -> None:
    assert record["tokens_per_step"] == 16
    assert record["parameters"] == 2 * 97 * 32 + 2 * (4 * 32 * 32 + 3 * 32 * 48 + 64) + 32
    assert record["floor_s"] == pytest.approx(4 * record["parameters"] * 16 / record["matmul_flops_per_s"])
    lora = record["phases"][0]
    assert lora["share_of_floor"] == pytest.approx(record["floor_s"] / lora["step_s"]["median"])
    assert lora["tokens_per_s"] == pytest.approx(16 / lora["step_s"]["median"])


def entries(times: dict[tuple[str, bool], tuple[float, int]]) -> list[dict[str, Any]]:
    return [phase_record(Phase(name, compiled, [step_s], [peak]), 10, 1.0) for (name, compiled), (step_s, peak) in times.items()]


def test_every_way_through_the_schedule_is_weighed_by_the_milestone_and_held_against_every_lora() -> None:
    measured = {
        (LORA, False): (2.0, 100), (MASKED, False): (3.0, 90), (CLOSED, False): (1.5, 60), (COMPACTED, False): (0.9, 50),
        (LORA, True): (1.0, 80), (MASKED, True): (1.2, 88), (COMPACTED, True): (0.6, 40),
    }  # fmt: skip
    schedules = schedule_records(entries(measured), 1 / 3)
    assert [(found["compiled"], found["compacted"]) for found in schedules] == [(False, False), (False, True), (True, True)]
    masked, eager, compiled = schedules
    assert masked["step_s"] == pytest.approx(2.0) and masked["of_lora"] == pytest.approx({"eager": 1.0, "compiled": 2.0})
    assert eager["step_s"] == pytest.approx(1.6) and eager["peak_of_lora"] == pytest.approx({"eager": 0.9, "compiled": 90 / 80})
    assert compiled["step_s"] == pytest.approx(0.8) and compiled["of_lora"] == pytest.approx({"eager": 0.4, "compiled": 0.8})


def test_a_mask_that_closes_at_once_has_one_phase_for_all_of_the_schedule() -> None:
    [schedule] = schedule_records(entries({(LORA, True): (1.0, 80), (COMPACTED, True): (0.75, 60)}), 0.0)
    assert schedule["of_lora"] == pytest.approx({"compiled": 0.75}) and schedule["peak_of_lora"] == pytest.approx({"compiled": 0.75})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [[LORA], [MASKED, CLOSED, COMPACTED]]),
        ({"uncompacted": False}, [[LORA], [MASKED, COMPACTED]]),
        ({"compile": "both", "uncompacted": False}, [[LORA], [MASKED, COMPACTED]] * 2),
        ({"pat": PatChoices(mask="random", closing="at-once")}, [[LORA], [CLOSED, COMPACTED]]),
    ],
)
def test_the_settings_say_what_is_measured(changes: dict[str, Any], expected: list[list[str]]) -> None:
    arms = arms_of(QUICK.model_copy(update=changes))
    assert [[phase.name for phase in arm] for arm in arms] == expected
    assert {arm[0].compiled for arm in arms} == ({False, True} if changes.get("compile") else {False})


def test_the_milestone_and_the_compaction_lie_between_the_phases(monkeypatch: pytest.MonkeyPatch) -> None:
    states: list[tuple[bool, bool]] = []
    whole = tuning.StepClock.on_step_begin

    def watched(self: Any, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        whole(self, args, state, control, model=model, **kwargs)
        states.append((model.sparsifier.mask.closed, model.compacted))

    monkeypatch.setattr(tuning.StepClock, "on_step_begin", watched)
    phases = [Phase(MASKED), Phase(CLOSED), Phase(COMPACTED)]
    tuning._run(phases, SHAPE, QUICK, 0, "cpu")
    assert states == [(False, False)] * 5 + [(True, False)] * 5 + [(True, True)] * 5
    assert [len(phase.step_s) for phase in phases] == [3, 3, 3]


@pytest.mark.lengthy
def test_what_does_not_fit_is_recorded_and_the_rest_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tuning._run

    def small_device(arm: list[Phase], *arguments: Any) -> None:
        if len(arm) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        whole(arm, *arguments)

    monkeypatch.setattr(tuning, "_run", small_device)
    record = benchmark_tuning(SHAPE, QUICK.model_copy(update={"rounds": 1}), 0, tmp_path / "tuning.json")
    assert [phase["status"] for phase in record["phases"]] == [OUT_OF_MEMORY, *["measured"] * 3]
    assert [schedule["of_lora"] for schedule in record["schedules"]] == [{}, {}]
    lines = list(summary(record))
    assert lines[0] == f"lora (eager): {OUT_OF_MEMORY}" and lines[-1].endswith("LoRA was not measured")


def test_rows_of_random_tokens_are_all_label() -> None:
    rows = tuning.RandomTokens(3, 5, 7, 0)
    assert len(rows) == 3 and torch.equal(rows[1]["labels"], rows[1]["input_ids"]) and int(rows.tokens_NT.max()) < 7


def test_a_step_belongs_to_the_phase_that_its_number_says() -> None:
    phases = [Phase("one"), Phase("two")]
    clock = tuning.StepClock(phases, 2, 3, "cpu")
    places = [clock._place(SimpleNamespace(global_step=step)) for step in range(10)]  # type: ignore[arg-type]
    assert [(phase.name, done) for phase, done in places] == [(name, done) for name in ("one", "two") for done in range(5)]
