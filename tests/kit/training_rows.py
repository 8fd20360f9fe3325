"""Rows to learn from and a Trainer's arguments, for tests that train a few steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import TrainingArguments

from tests.kit.tiny_models import random_tokens


class RandomRows(Dataset[dict[str, torch.Tensor]]):
    """Rows of equal length, some tokens without a label, so that micro-batches differ in how many items they hold."""

    def __init__(self, count: int = 48) -> None:
        self.tokens = random_tokens(count, 10, seed=11)
        self.labels = self.tokens.clone()
        for row in range(count):
            self.labels[row, : 1 + row % 7] = -100

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.tokens[index], "labels": self.labels[index]}


def arguments(folder: Path, **changes: Any) -> TrainingArguments:
    settings: dict[str, Any] = {
        "output_dir": str(folder), "max_steps": 12, "per_device_train_batch_size": 8, "learning_rate": 5e-3, "report_to": "none",
        "use_cpu": True, "save_strategy": "no", "logging_steps": 1, "disable_tqdm": True, "label_names": ["labels"],
    }  # fmt: skip
    return TrainingArguments(**settings | changes)
