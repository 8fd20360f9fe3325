"""A recipe in the Trainer's words: the order in which the rows come."""

from __future__ import annotations

from pathlib import Path

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
