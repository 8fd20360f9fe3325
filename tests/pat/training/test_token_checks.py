"""Tokens that are none of the model's vocabulary are told by row, and before a step where the data set can be looked at as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset as Columns
from peft import LoraConfig, get_peft_model
from torch.utils.data import Dataset, IterableDataset
from transformers import Trainer

from pat import PatConfig, PatTrainer, attach
from tests.kit.tiny_models import VOCABULARY, tiny_model
from tests.kit.training_rows import RandomRows, arguments

ALLOWED = f"from 0 to {VOCABULARY - 1}, the model's vocabulary has {VOCABULARY} tokens"
ROW, COUNT = 1203, 2000
STRANGE = {
    "beyond": ("input_ids", VOCABULARY, f"input_ids holds {VOCABULARY}; must be {ALLOWED}"),
    "negative": ("input_ids", -1, f"input_ids holds -1; must be {ALLOWED}"),
    "padding of labels": ("input_ids", -100, f"input_ids holds -100; must be {ALLOWED}"),
    "a label beyond": ("labels", VOCABULARY, f"labels holds {VOCABULARY}; must be -100, or {ALLOWED}"),
    "a label below": ("labels", -101, f"labels holds -101; must be -100, or {ALLOWED}"),
    "another ignored label": ("labels", -1, f"labels holds -1; must be -100, or {ALLOWED}"),
}


def rows_with(name: str, value: int, row: int = ROW, count: int = COUNT) -> dict[str, list[list[int]]]:
    """Return rows in which the fifth token of one is another."""
    rows = RandomRows(count)
    columns = {"input_ids": rows.tokens.tolist(), "labels": rows.labels.tolist(), "attention_mask": [[1] * 10] * count}
    columns[name][row][4] = value
    return columns


def model_of(method: str) -> Any:
    stock = tiny_model("llama")
    if method == "lora":
        return get_peft_model(stock, LoraConfig(r=3, target_modules="all-linear"))
    return attach(stock, PatConfig(pruning_ratio=0.25, hio_rank=4, lora_rank=3))


def trainer_of(rows: Any, folder: Path, kind: Any = PatTrainer, method: str = "lora", **options: Any) -> Any:
    return kind(model=model_of(method), args=arguments(folder, max_steps=2), train_dataset=rows, **options)


def no_step(*_: Any, **__: Any) -> Any:
    raise AssertionError("a step is taken")


@pytest.mark.parametrize("shape", ["plain", "shuffled", "torch"])
@pytest.mark.parametrize("method", ["lora", "pat"])
@pytest.mark.parametrize("case", STRANGE)
def test_a_data_set_in_columns_is_looked_at_before_the_first_step(
    case: str, method: str, shape: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, value, said = STRANGE[case]
    rows = Columns.from_dict(rows_with(name, value))
    row = ROW
    if shape == "shuffled":
        order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(0)).tolist()
        rows, row = rows.select(order), order.index(ROW)
    monkeypatch.setattr(PatTrainer, "training_step", no_step)
    trainer = trainer_of(rows.with_format("torch") if shape == "torch" else rows, tmp_path, method=method)
    with pytest.raises(ValueError, match=f"train_dataset: row {row}: {said}"):
        trainer.train()


@pytest.mark.parametrize("name", ["labels", "attention_mask"])
def test_columns_of_other_lengths_are_told(name: str, tmp_path: Path) -> None:
    columns = rows_with("labels", -100)
    columns[name][ROW] = columns[name][ROW][:-1]
    with pytest.raises(ValueError, match=f"train_dataset: row {ROW}: {name} has 9 entries, input_ids 10; must be as many"):
        trainer_of(Columns.from_dict(columns), tmp_path).train()


class Listed(Dataset[dict[str, torch.Tensor]]):
    def __init__(self, columns: dict[str, list[list[int]]]) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns["labels"])

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        return {name: torch.tensor(column[row]) for name, column in self.columns.items()}


class Streamed(IterableDataset[dict[str, torch.Tensor]]):
    def __init__(self, columns: dict[str, list[list[int]]]) -> None:
        self.rows = Listed(columns)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        return (self.rows[place] for place in range(len(self.rows)))


def made(columns: dict[str, list[list[int]]]) -> Columns:
    """Return a data set whose rows are made when they are asked for."""
    listed = Listed(columns)
    places = Columns.from_dict({"input_ids": [[place] for place in range(len(listed))]})
    return places.with_transform(lambda batch: {name: [column[ids[0]] for ids in batch["input_ids"]] for name, column in columns.items()})


@pytest.mark.parametrize("kind", [Listed, Streamed, made])
@pytest.mark.parametrize("case", STRANGE)
def test_of_other_data_sets_each_batch_is_looked_at(case: str, kind: Any, tmp_path: Path) -> None:
    name, value, said = STRANGE[case]
    trainer = trainer_of(kind(rows_with(name, value, row=5, count=8)), tmp_path)
    with pytest.raises(ValueError, match=rf"row \d of a batch: {said}"):
        trainer.train()


def losses(trainer: Any) -> list[float]:
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("kind", [Listed, Columns.from_dict, made])
def test_what_is_in_order_is_learned_as_ever(kind: Any, tmp_path: Path) -> None:
    """With the vocabulary's first and last token, and rows of which nothing is learned."""
    columns = rows_with("input_ids", VOCABULARY - 1, row=5, count=16)
    columns["input_ids"][6][0], columns["labels"][6] = 0, [-100] * 10
    courses = []
    for trainer in (PatTrainer, Trainer):
        torch.manual_seed(0)
        courses.append(losses(trainer_of(kind(columns), tmp_path, trainer)))
    assert courses[0] == pytest.approx(courses[1], abs=1e-4) and len(courses[0]) == 2


def test_labels_that_a_loss_of_ones_own_takes_for_something_else_are_left_to_it(tmp_path: Path) -> None:
    def own(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
        assert int(labels.max()) == 10**6
        loss: torch.Tensor = outputs.logits.square().mean()
        return loss

    for kind in (Listed, Columns.from_dict):
        columns = rows_with("labels", 10**6, row=5, count=8)
        assert len(losses(trainer_of(kind(columns), tmp_path, compute_loss_func=own))) == 2
