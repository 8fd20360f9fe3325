"""What PatCallback does beside a step asks no GPU for an answer, the step at which membership is settled among them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import TrainerControl

from pat import PatCallback, PatConfig, PatTrainer, attach
from tests.kit.no_waiting import NoAnswers, WaitedError
from tests.kit.tiny_models import tiny_model
from tests.kit.training_rows import RandomRows, arguments


class NeverWaiting(PatCallback):
    """Adds the gradients and moves the mask on where nothing may be waited for."""

    def on_pre_optimizer_step(self, *given: Any, **options: Any) -> None:
        with NoAnswers():  # type: ignore[no-untyped-call]
            super().on_pre_optimizer_step(*given, **options)

    def on_step_end(self, *given: Any, **options: Any) -> None:
        with NoAnswers():  # type: ignore[no-untyped-call]
            super().on_step_end(*given, **options)


@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"decide_fraction": 0.1},
        {"mask_learning": "gradient"},
        {"mask_learning": "adam"},
        {"count": "loss"},
        {"mask": "random"},
        {"operators": "pinned"},
        {"variant": "release"},
    ],
    ids=str,
)
def test_no_step_waits_for_a_gpu(choices: dict[str, Any], tmp_path: Path) -> None:
    model: Any = attach(tiny_model("llama"), PatConfig(pruning_ratio=0.25, hio_rank=4, lora_rank=3, lora_dropout=0.0, **choices))
    trainer = PatTrainer(model=model, args=arguments(tmp_path), train_dataset=RandomRows(), callbacks=[NeverWaiting()])
    trainer.train()
    assert trainer.state.global_step == 12 > model.sparsifier.mask.config.milestone_step


@pytest.mark.parametrize("value", [True, 1.0])
def test_an_assignment_of_a_number_counts_as_waiting(value: bool | float) -> None:
    vector_D = torch.zeros(4)
    with NoAnswers(), pytest.raises(WaitedError, match="index_put"):  # type: ignore[no-untyped-call]
        vector_D[torch.tensor([1, 2])] = value


@pytest.mark.parametrize(
    ("choices", "options", "compact", "message"),
    [
        ({}, {"fp16": True}, False, "in fp16, whose gradients are scaled; use bf16=True"),
        ({}, {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 6, "save_strategy": "steps", "save_steps": 6}, True,
         "cannot load the best of its checkpoints at the end"),
    ],
)  # fmt: skip
def test_what_would_fail_after_the_last_step_is_refused_before_the_first(
    choices: dict[str, Any], options: dict[str, Any], compact: bool, message: str, tmp_path: Path
) -> None:
    model: Any = attach(tiny_model("llama"), PatConfig(pruning_ratio=0.25, hio_rank=4, lora_rank=3, lora_dropout=0.0, **choices))
    model.plan(12)
    state, asked = (
        SimpleNamespace(max_steps=12, global_step=0),
        SimpleNamespace(**({"n_gpu": 0, "deepspeed": None, "fp16": False, "load_best_model_at_end": False} | options)),
    )
    with pytest.raises(ValueError, match=message):
        PatCallback(compact=compact).on_train_begin(asked, state, TrainerControl(), model=model)  # type: ignore[arg-type]
