"""A recipe in the Trainer's words: the order in which the rows come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer

from pat.settings.jobs import TuneJob, TuningSettings
from pat.training.request import Arm
from pat.training.training_arguments import training_arguments


def batches_of_rows(tmp_path: Path, order: int) -> list[list[int]]:
    """Return the rows of every batch that a Trainer takes, by their indices, in the given order of seed 0."""
    recipe = TuningSettings(max_steps=1, learning_rate=1e-3, batch_size=8, data_order=order)
    arguments = training_arguments(Arm(tuner="lora", ratio=0.0, seed=0, job=TuneJob(tuning=recipe)), tmp_path, "cpu")
    trainer = Trainer(model=torch.nn.Linear(1, 1), args=arguments, train_dataset=[{"row": index} for index in range(64)])
    return [batch["row"].tolist() for batch in trainer.get_train_dataloader()]


def test_another_order_of_the_rows_is_another_shuffle_of_the_same_rows(tmp_path: Path) -> None:
    first, again, second = (batches_of_rows(tmp_path, order) for order in (0, 0, 1))
    assert first == again != second
    for batches in (first, second):
        assert sorted(row for batch in batches for row in batch) == list(range(64))


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear"])
def test_a_warm_up_is_taken_whatever_the_schedule(schedule: str, tmp_path: Path) -> None:
    """The Trainer's constant schedule leaves it out."""
    recipe = TuningSettings.model_validate(
        {"max_steps": 12, "learning_rate": 1e-3, "batch_size": 8, "schedule": schedule, "warmup_steps": 6}
    )
    arguments = training_arguments(Arm(tuner="lora", ratio=0.0, seed=0, job=TuneJob(tuning=recipe)), tmp_path, "cpu")
    trainer: Any = Trainer(model=torch.nn.Linear(1, 1), args=arguments, train_dataset=[{"row": 0}])
    trainer.create_optimizer_and_scheduler(12)
    rates = []
    for _ in range(8):
        rates.append(trainer.lr_scheduler.get_last_lr()[0])
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
    assert rates[:7] == pytest.approx([1e-3 * step / 6 for step in range(7)])
    assert schedule != "constant" or rates[7] == 1e-3


@pytest.mark.parametrize(("value", "layers"), [(False, False), ("feed-forward", False), (True, True)])
def test_the_trainer_recomputes_whole_layers_where_that_is_meant(value: bool | str, layers: bool, tmp_path: Path) -> None:
    """It knows of nothing smaller; feed-forward blocks are recomputed without it."""
    recipe = TuningSettings.model_validate({"max_steps": 1, "learning_rate": 1e-3, "batch_size": 8, "gradient_checkpointing": value})
    arguments = training_arguments(Arm(tuner="lora", ratio=0.0, seed=0, job=TuneJob(tuning=recipe)), tmp_path, "cpu")
    assert arguments.activation_checkpointing is layers
    assert arguments.activation_checkpointing_kwargs == ({"use_reentrant": False} if layers else None)
