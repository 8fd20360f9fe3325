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
from pat.models.token_loss import IGNORED_LABEL, learned_tokens
from pat.settings.jobs import DistillationSettings
from pat.training.distillation import Distillation
from pat.training.learned_places import INDEX, TARGETS, WithLearnedPlaces, taken_from
from tests.kit.no_waiting import NoAnswers, WaitedError
from tests.kit.tiny_models import tiny_model
from tests.kit.tiny_world import tiny_tokenizer
from tests.kit.training_rows import RandomRows, arguments


@pytest.fixture
def never_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes losses, and their gradients, where nothing may be waited for."""
    take = PatTrainer.compute_loss

    def guarded(trainer: PatTrainer, *given: Any, **options: Any) -> Any:
        with NoAnswers():  # type: ignore[no-untyped-call]
            loss = take(trainer, *given, **options)
            torch.autograd.grad(loss, [p for p in trainer.model.parameters() if p.requires_grad], retain_graph=True, allow_unused=True)  # type: ignore[union-attr]
        return loss

    monkeypatch.setattr(PatTrainer, "compute_loss", guarded)


class AskedLater(PatTrainer):
    """As before there were places: the labels are asked on the device, which may be others than the collator's."""

    def compute_loss(self, *given: Any, **options: Any) -> Any:
        return super().compute_loss(*given, **options)


def model_of(method: str) -> nn.Module:
    stock = tiny_model("llama")
    rely_on_causal_kernel(stock, 10)  # as `pat tune` does on a GPU: a mask would be looked into
    if method == "lora":
        return get_peft_model(stock, LoraConfig(r=3, target_modules="all-linear"))
    return attach(stock, PatConfig(pruning_ratio=0.25, hio_rank=4, lora_rank=3, lora_dropout=0.0))


@pytest.mark.parametrize(("method", "distilled"), [("lora", False), ("pat", False), ("pat", True)])
@pytest.mark.usefixtures("never_waiting")
def test_no_loss_waits_for_a_gpu(method: str, distilled: bool, tmp_path: Path) -> None:
    teacher = tiny_model("llama")
    rely_on_causal_kernel(teacher, 10)
    options: dict[str, Any] = {"distillation": Distillation(teacher, DistillationSettings())} if distilled else {}
    trainer = PatTrainer(model=model_of(method), args=arguments(tmp_path), train_dataset=RandomRows(), **options)
    trainer.train()
    assert trainer.state.global_step == 12


@pytest.mark.usefixtures("never_waiting")
def test_a_loss_that_asks_the_labels_itself_waits(tmp_path: Path) -> None:
    trainer = AskedLater(model=model_of("lora"), args=arguments(tmp_path), train_dataset=RandomRows())
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


def all_learned(inputs: dict[str, Any]) -> dict[str, Any]:
    return {**inputs, "labels": inputs["input_ids"].clone()}


def first_half_unlearned(inputs: dict[str, Any]) -> dict[str, Any]:
    inputs["labels"][:, :5] = IGNORED_LABEL
    return inputs


def with_loss(kind: Any, change: Any) -> Any:
    class Own(kind):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: Any, *given: Any, **options: Any) -> Any:
            return super().compute_loss(model, change(inputs), *given, **options)

    return Own


def with_step(kind: Any, change: Any) -> Any:
    class Own(kind):  # type: ignore[misc]
        def training_step(self, model: Any, inputs: Any, *given: Any, **options: Any) -> Any:
            return super().training_step(model, change(inputs), *given, **options)

    return Own


def with_batches(kind: Any, change: Any) -> Any:
    class Own(kind):  # type: ignore[misc]
        def get_batch_samples(self, *given: Any, **options: Any) -> Any:
            batches, items = super().get_batch_samples(*given, **options)
            return [change(batch) for batch in batches], items

    return Own


def with_assigned_loss(kind: Any, change: Any) -> Any:
    def made(**options: Any) -> Any:
        trainer = kind(**options)
        take = trainer.compute_loss
        trainer.compute_loss = lambda model, inputs, *given, **named: take(model, change(inputs), *given, **named)
        return trainer

    return made


@pytest.mark.parametrize("own", [with_loss, with_step, with_batches, with_assigned_loss])
@pytest.mark.parametrize("change", [all_learned, first_half_unlearned])
def test_labels_that_a_step_of_ones_own_changes_are_the_ones_learned(own: Any, change: Any, tmp_path: Path) -> None:
    courses = []
    for kind in (PatTrainer, Trainer):
        torch.manual_seed(0)
        trainer = own(kind, change)(model=model_of("lora"), args=arguments(tmp_path, max_steps=2), train_dataset=RandomRows())
        trainer.train()
        courses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert courses[0] == pytest.approx(courses[1], abs=1e-4) and len(courses[0]) == 2


def test_a_step_of_ones_own_is_given_what_the_collator_gives(tmp_path: Path) -> None:
    given: list[set[str]] = []

    def noted(inputs: dict[str, Any]) -> dict[str, Any]:
        given.append(set(inputs))
        return inputs

    trainer = with_loss(PatTrainer, noted)(model=model_of("lora"), args=arguments(tmp_path, max_steps=1), train_dataset=RandomRows())
    trainer.train()
    assert given == [{"input_ids", "labels"}]


def test_labels_in_another_shape_are_the_stock_losss_or_refused(tmp_path: Path) -> None:
    """Flat ones the stock loss takes; with one too few a row, others than those meant would be learned."""

    def shaped(change: Any, kind: Any) -> list[float]:
        def collate(rows: Any) -> Any:
            batch = default_data_collator(rows)
            return batch | {"labels": change(batch["labels"])}

        torch.manual_seed(0)
        trainer = kind(model=model_of("lora"), args=arguments(tmp_path, max_steps=2), train_dataset=RandomRows(), data_collator=collate)
        trainer.train()
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    assert shaped(torch.flatten, PatTrainer) == shaped(torch.flatten, Trainer)
    with pytest.raises(ValueError, match=r"labels are of shape \(8, 9\), the batch's tokens of \(8, 10\)"):
        shaped(lambda labels_BT: labels_BT[:, 1:], PatTrainer)


@pytest.mark.parametrize("labels", [{}, {"labels": torch.ones(80, dtype=torch.long)}])
def test_a_teacher_without_labels_of_tokens_is_told(labels: dict[str, Any], tmp_path: Path) -> None:
    distillation = Distillation(tiny_model("llama"), DistillationSettings())
    model = model_of("lora")
    trainer = PatTrainer(model=model, args=arguments(tmp_path), train_dataset=RandomRows(), distillation=distillation)
    with pytest.raises(ValueError, match="distillation needs labels of tokens"):
        trainer.compute_loss(model, {"input_ids": torch.ones(8, 10, dtype=torch.long), **labels})


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
