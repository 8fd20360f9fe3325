"""Learned tokens are told with the batch: the same losses, and nothing in a loss that a GPU would have to be waited for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.utils.data import IterableDataset
from transformers import Trainer, default_data_collator

from pat import PadToLongest, PatConfig, PatTrainer, attach
from pat.models.attention import rely_on_causal_kernel
from pat.models.token_loss import learned_tokens
from pat.settings.jobs import DistillationSettings
from pat.training.distillation import Distillation
from pat.training.learned_places import INDEX, TARGETS, WithLearnedPlaces, taken_from
from tests.kit.no_waiting import NoAnswers, WaitedError
from tests.kit.tiny_models import tiny_model
from tests.kit.tiny_world import tiny_tokenizer
from tests.kit.training_rows import RandomRows, arguments


class NeverWaiting(PatTrainer):
    """Takes its losses, and their gradients, where nothing may be waited for."""

    def compute_loss(self, *given: Any, **options: Any) -> Any:
        with NoAnswers():  # type: ignore[no-untyped-call]
            loss = super().compute_loss(*given, **options)
            torch.autograd.grad(loss, [p for p in self.model.parameters() if p.requires_grad], retain_graph=True, allow_unused=True)  # type: ignore[union-attr]
        return loss


class AskedLater(PatTrainer):
    """As before there were places: the labels are asked on the device."""

    def compute_loss(self, model: Any, inputs: Any, *given: Any, **options: Any) -> Any:
        return super().compute_loss(model, taken_from(inputs)[0], *given, **options)


class AskedInVain(AskedLater, NeverWaiting):
    """The same, where nothing may be waited for."""


def model_of(method: str) -> nn.Module:
    stock = tiny_model("llama")
    rely_on_causal_kernel(stock, 10)  # as `pat tune` does on a GPU: a mask would be looked into
    if method == "lora":
        return get_peft_model(stock, LoraConfig(r=3, target_modules="all-linear"))
    return attach(stock, PatConfig(pruning_ratio=0.25, hio_rank=4, lora_rank=3, lora_dropout=0.0))


@pytest.mark.parametrize(("method", "distilled"), [("lora", False), ("pat", False), ("pat", True)])
def test_no_loss_waits_for_a_gpu(method: str, distilled: bool, tmp_path: Path) -> None:
    teacher = tiny_model("llama")
    rely_on_causal_kernel(teacher, 10)
    options: dict[str, Any] = {"distillation": Distillation(teacher, DistillationSettings())} if distilled else {}
    trainer = NeverWaiting(model=model_of(method), args=arguments(tmp_path), train_dataset=RandomRows(), **options)
    trainer.train()
    assert trainer.state.global_step == 12


def test_a_loss_that_asks_the_labels_itself_waits(tmp_path: Path) -> None:
    trainer = AskedInVain(model=model_of("lora"), args=arguments(tmp_path), train_dataset=RandomRows())
    with pytest.raises(WaitedError, match="nonzero"):
        trainer.train()


@pytest.mark.parametrize("method", ["lora", "pat"])
def test_the_losses_are_those_of_labels_that_are_asked(method: str, tmp_path: Path) -> None:
    courses = []
    for kind in (PatTrainer, AskedLater):
        torch.manual_seed(0)
        trainer = kind(model=model_of(method), args=arguments(tmp_path), train_dataset=RandomRows())
        trainer.train()
        courses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert courses[0] == courses[1] and len(courses[0]) == 12


class Stream(IterableDataset[Mapping[str, Any]]):
    """Rows one after the other, which one process hands to all."""

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        rows = RandomRows()
        yield from (rows[place] for place in range(len(rows)))


def test_where_one_process_makes_all_batches_they_are_as_the_collator_makes_them(tmp_path: Path) -> None:
    trainer = PatTrainer(model=model_of("lora"), args=arguments(tmp_path), train_dataset=Stream())
    assert INDEX not in next(iter(trainer.get_train_dataloader()))
    trainer.train()
    assert trainer.state.global_step == 12


def test_what_is_evaluated_and_saved_is_the_collators_own(tmp_path: Path) -> None:
    collate = PadToLongest(tiny_tokenizer())
    trainer = PatTrainer(model=model_of("lora"), args=arguments(tmp_path), train_dataset=RandomRows(), eval_dataset=RandomRows(8))
    assert set(next(iter(trainer.get_train_dataloader()))) - set(next(iter(trainer.get_eval_dataloader()))) == {INDEX, TARGETS}
    trainer.data_collator = collate
    trainer.get_train_dataloader()
    assert trainer.data_collator is collate, "the stock trainer saves its tokenizer with a checkpoint"


@pytest.mark.parametrize("batch", [{"input_ids": torch.ones(2, 3)}, {"labels": torch.ones(4)}, [torch.ones(2)]])
def test_a_batch_without_labels_of_tokens_is_left_as_it_is(batch: Any) -> None:
    assert WithLearnedPlaces(lambda _rows: batch)([]) is batch


def test_the_places_are_those_of_the_labels() -> None:
    batch = default_data_collator([RandomRows()[place] for place in range(4)])
    rest, tokens = taken_from(WithLearnedPlaces(lambda _rows: batch)([]))
    expected = learned_tokens(batch["labels"])
    assert rest == batch and tokens is not None
    assert torch.equal(tokens.index_N, expected.index_N) and torch.equal(tokens.targets_N, expected.targets_N)
    assert set(WithLearnedPlaces(lambda _rows: batch)([])) == {*batch, INDEX, TARGETS}


@given(st.lists(st.lists(st.integers(3, 40), min_size=1, max_size=9), min_size=1, max_size=5), st.sampled_from(["left", "right"]))
def test_padding_is_the_tokenizers(rows: list[list[int]], side: str) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.padding_side = side
    batch = PadToLongest(tokenizer)([{"input_ids": row, "labels": row} for row in rows])
    stock = tokenizer.pad({"input_ids": rows}, return_tensors="pt")
    assert torch.equal(batch["input_ids"], stock["input_ids"]) and batch["input_ids"].dtype == stock["input_ids"].dtype
    assert torch.equal(batch.get("attention_mask", torch.ones_like(stock["attention_mask"])), stock["attention_mask"])
    assert torch.equal(batch["labels"], stock["input_ids"].masked_fill(stock["attention_mask"] == 0, -100))


def test_a_tokenizer_without_padding_token_is_named() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    with pytest.raises(ValueError, match=r"no padding token: set one, as tokenizer.pad_token = tokenizer.eos_token"):
        PadToLongest(tokenizer)([{"input_ids": [3], "labels": [3]}])


def test_the_stock_trainer_takes_the_collator_as_ever(tmp_path: Path) -> None:
    rows: Any = [{"input_ids": [5, 6, 7][: 1 + place % 3], "labels": [5, 6, 7][: 1 + place % 3]} for place in range(24)]
    trainer = Trainer(model=model_of("lora"), args=arguments(tmp_path), train_dataset=rows, data_collator=PadToLongest(tiny_tokenizer()))
    trainer.train()
    assert trainer.state.global_step == 12
