"""What only a GPU runs: `make test-gpu`. PAT_TESTS_DEVICE=cpu tries the tests themselves where there is none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from peft import PeftModel
from transformers import TrainerControl, TrainerState, TrainingArguments

import pat.training.tuning
from pat.benchmark import inference
from pat.benchmark.candidates import random_model, stock_config
from pat.benchmark.evaluation import benchmark_evaluation
from pat.benchmark.settings import EvaluationBenchmark, InferenceBenchmark, ModelShape
from pat.models.compiled import is_compiled
from pat.settings.jobs import TuneJob
from pat.training.divergence import StopWhenDiverged
from pat.training.trainer import PatTrainer
from tests.kit.gpus import all_gpus
from tests.kit.sharded_runs import check_same_course, tune_all
from tests.kit.sharded_tunings import CASES
from tests.kit.tiny_world import write_world
from tests.kit.tuning_requests import asked

pytestmark = pytest.mark.gpu

DEVICE: Literal["cpu", "cuda"] = "cpu" if os.environ.get("PAT_TESTS_DEVICE") == "cpu" else "cuda"
SHAPE = ModelShape(vocab_size=256, hidden_size=128, layers=3, heads=4, intermediate_size=192)
RECIPE: dict[str, Any] = {
    "max_steps": 12, "learning_rate": 3e-3, "batch_size": 8, "checkpoint_steps": 12, "log_steps": 12, "device": DEVICE,
    "lora": {"rank": 3, "alpha": 4.0, "dropout": 0.0},
}  # fmt: skip


def tuned(folder: Path, name: str, tuner: str, **changes: Any) -> PatTrainer:
    """Tune the world in `folder`; every step is logged unless the changes say otherwise."""
    job = TuneJob.model_validate({"tuning": RECIPE | {"log_steps": 1} | changes, "pat": {"hio_rank": 8}})
    ratio = 0.25 if tuner == "pat" else 0.0
    trainer, _ = pat.training.tuning.train(asked(folder / "base", folder / "instruct.jsonl", tuner, ratio, 7, job, folder / f"run-{name}"))
    assert isinstance(trainer, PatTrainer)
    return trainer


def layers_are_compiled(trainer: PatTrainer) -> bool:
    assert isinstance(trainer.model, PeftModel)
    stock: Any = trainer.model.get_base_model()
    return is_compiled(stock)


def losses(trainer: PatTrainer) -> list[float]:
    return [entry["instruct_loss"] for entry in trainer.state.log_history if "instruct_loss" in entry]


class NoWaiting(StopWhenDiverged):
    """Makes torch raise where a step between two log entries waits for the GPU."""

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if DEVICE == "cuda":
            torch.cuda.set_sync_debug_mode("error" if 2 <= state.global_step < 10 else "default")


@pytest.fixture
def _waiting_is_allowed_again() -> Iterator[None]:
    yield
    if DEVICE == "cuda":
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.usefixtures("_waiting_is_allowed_again")
@pytest.mark.parametrize("tuner", ["lora", "pat"])
def test_no_step_between_two_log_entries_waits_for_the_gpu(tuner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_world(tmp_path, hidden_size=64)
    monkeypatch.setattr(pat.training.tuning, "StopWhenDiverged", NoWaiting)
    assert tuned(tmp_path, "run", tuner, log_steps=12, compact=False).state.global_step == 12


def test_compacted_and_compiled_runs_take_the_masked_runs_course(tmp_path: Path) -> None:
    """In fp32; the milestone is at step 4."""
    write_world(tmp_path, hidden_size=64)
    masked = losses(tuned(tmp_path, "masked", "pat", compact=False))
    assert len(masked) == 12
    for compiled in (False, True):
        torch.compiler.reset()
        trainer = tuned(tmp_path, f"compacted-{compiled}", "pat", compact=True, compile=compiled)
        assert layers_are_compiled(trainer) == compiled
        assert losses(trainer) == pytest.approx(masked, rel=1e-4)


@pytest.mark.parametrize(
    ("tuner", "changes"), [("lora", {}), ("dora", {}), *(("lora", {"gradient_checkpointing": value}) for value in ("feed-forward", True))]
)
def test_compiled_layers_take_the_course_of_eager_ones(tuner: str, changes: dict[str, Any], tmp_path: Path) -> None:
    write_world(tmp_path, hidden_size=64)
    eager = losses(tuned(tmp_path, "eager", tuner, **changes))
    torch.compiler.reset()
    trainer = tuned(tmp_path, "compiled", tuner, compile=True, **changes)
    assert layers_are_compiled(trainer)
    assert losses(trainer) == pytest.approx(eager, rel=1e-4)


@pytest.mark.parametrize(("compiled", "new_tokens"), [(False, 3), (True, 3), (True, 0)])
def test_a_pass_that_is_one_graph_chooses_the_models_own_tokens(compiled: bool, new_tokens: int) -> None:
    settings = InferenceBenchmark(context=16, new_tokens=new_tokens, compile=compiled, precision="fp32", device=DEVICE)
    model = random_model(stock_config(SHAPE), DEVICE, torch.float32, 0)
    generation = inference.Generation(model, 2, settings, DEVICE, 0)
    tokens = 1 + new_tokens
    expected = model.generate(generation.prompt_BT, max_new_tokens=tokens, do_sample=False, eos_token_id=None, pad_token_id=0)  # type: ignore[operator]
    for _round in range(3):
        generation.run()
        assert torch.equal(generation.latest_B1, expected[:, -1:])


def test_batched_answers_are_those_of_lm_eval_one_by_one(tmp_path: Path) -> None:
    settings = EvaluationBenchmark(items=4, batch_sizes=(3, 16), rounds=1, precision="fp32", device=DEVICE)
    record = benchmark_evaluation(SHAPE, None, [], settings, 0, tmp_path / "evaluation.json")
    for entry in record["measurements"][1:]:
        assert entry.get("same_answers", 1.0) == 1.0 and (entry.get("largest_log_likelihood_gap") or 0.0) < 1e-3


@pytest.mark.skipif(DEVICE == "cuda" and len(all_gpus()) < 2, reason="needs two GPUs")
def test_two_gpus_with_shards_tune_as_one_does(tmp_path: Path) -> None:
    """By NCCL, in fp32, all the cases of the test on two CPU processes."""
    tune_all(tmp_path, DEVICE, all_gpus()[:2] if DEVICE == "cuda" else [])
    for name in CASES:
        check_same_course(tmp_path, name, within=1e-3)
