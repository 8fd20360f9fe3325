"""PatTrainer against the stock one: optimizer and schedule as the arguments say or refused, operations counted, the same loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer
from transformers.optimization import Adafactor

from pat import PatCallback, PatConfig, PatModel, PatTrainer, attach
from pat.training.trainer import parameter_groups
from tests.kit.tiny_models import tiny_model
from tests.kit.training_rows import RandomRows, arguments

pytestmark = pytest.mark.lengthy


def model_of(**choices: Any) -> PatModel:
    settings: dict[str, Any] = {
        "pruning_ratio": 0.25,
        "hio_rank": 4,
        "lora_rank": 3,
        "lora_dropout": 0.0,
        "mask_learning": "adam",
    } | choices
    return attach(tiny_model("llama"), PatConfig(**settings))


def trainer_of(folder: Path, model: PatModel | None = None, **changes: Any) -> PatTrainer:
    options = {name: changes.pop(name) for name in ("optimizers", "optimizer_cls_and_kwargs", "eval_dataset") if name in changes}
    return PatTrainer(model=model or model_of(), args=arguments(folder, **changes), train_dataset=RandomRows(), **options)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"optim": "adamw_torch"}, torch.optim.AdamW),
        ({"optim": "sgd"}, torch.optim.SGD),
        ({"optim": "rmsprop"}, torch.optim.RMSprop),
        ({"optim": "adafactor"}, Adafactor),
        ({"optimizer_cls_and_kwargs": (torch.optim.Adagrad, {"lr": 1e-3})}, torch.optim.Adagrad),
    ],
)
def test_the_optimizer_is_the_one_asked_for(changes: dict[str, Any], kind: type[torch.optim.Optimizer], tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, **changes, max_steps=12)
    trainer.train()
    assert trainer.optimizer is not None and type(getattr(trainer.optimizer, "optimizer", trainer.optimizer)) is kind
    model: Any = trainer.model
    proxies = [group for group in trainer.optimizer.param_groups if any(p is model.sparsifier.mask.proxy for p in group["params"])]
    assert [group["lr"] for group in proxies] == [0.5 / 4], "the mask's rate is its own"


def test_an_optimizer_of_ones_own_is_taken_as_it_is(tmp_path: Path) -> None:
    model = model_of(total_steps=12)
    optimizer = torch.optim.SGD(parameter_groups(model, 1e-2))
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    trainer = trainer_of(tmp_path, model, optimizers=(optimizer, schedule))
    trainer.train()
    assert isinstance(trainer.lr_scheduler, torch.optim.lr_scheduler.StepLR)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-2 / 2**12)


def test_an_optimizer_that_forms_its_groups_itself_is_refused(tmp_path: Path) -> None:
    given: Any = (torch.optim.SGD, {"params": [], "lr": 1e-3})
    with pytest.raises(ValueError, match=r"optim=.*forms its parameter groups itself.*adamw_torch"):
        trainer_of(tmp_path, optimizer_cls_and_kwargs=given).train()


@pytest.mark.parametrize("schedule", ["cosine", "constant_with_warmup", "inverse_sqrt", "polynomial"])
def test_the_schedule_is_the_one_asked_for_and_leaves_the_mask_alone(schedule: str, tmp_path: Path) -> None:
    ours, stock = (
        kind(
            model=model_of(), args=arguments(tmp_path, lr_scheduler_type=schedule, warmup_steps=3), train_dataset=RandomRows(), callbacks=[PatCallback()]
        )
        for kind in (PatTrainer, Trainer)
    )  # fmt: skip
    ours.train()
    stock.train()
    rates = [[entry["learning_rate"] for entry in each.state.log_history if "learning_rate" in entry] for each in (ours, stock)]
    assert rates[0] == rates[1] and len(rates[0]) == 12
    assert ours.optimizer is not None and ours.optimizer.param_groups[-1]["lr"] == 0.5 / 4


@pytest.mark.parametrize("choices", [{"mask_learning_rate": "recipe"}, {"variant": "release"}])
def test_a_mask_that_follows_the_recipe_has_its_rate_and_schedule(choices: dict[str, Any], tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, model_of(**choices), lr_scheduler_type="cosine", warmup_steps=3)
    trainer.train()
    assert trainer.optimizer is not None and trainer.lr_scheduler is not None
    whole, proxy = trainer.optimizer.param_groups
    assert proxy["initial_lr"] == whole["initial_lr"] == 5e-3 and proxy["lr"] == whole["lr"] < 1e-6
    model: Any = trainer.model
    assert proxy["params"][0] is model.sparsifier.mask.proxy


def test_a_mask_that_learns_by_itself_has_no_recipes_rate() -> None:
    with pytest.raises(ValueError, match="mask_learning_rate='recipe' with mask_learning='saliency': only 'adam' has a recipe's rate"):
        PatConfig(pruning_ratio=0.25, mask_learning_rate="recipe")


def test_a_schedule_that_looks_at_the_losses_is_refused(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "steps", "eval_steps": 4}
    with pytest.raises(ValueError, match=r"lr_scheduler_type=.*reduce_lr_on_plateau.*such as cosine or linear"):
        trainer_of(tmp_path, **changes, eval_dataset=RandomRows(8)).train()


def test_operations_are_counted_as_the_stock_trainer_does(tmp_path: Path) -> None:
    counted = []
    for kind in (PatTrainer, Trainer):
        trainer = kind(model=model_of(), args=arguments(tmp_path), train_dataset=RandomRows(), callbacks=[PatCallback()])
        trainer.train()
        counted.append(trainer.state.total_flos)
    assert counted[0] == counted[1] > 0


def test_a_compacted_model_counts_fewer_operations(tmp_path: Path) -> None:
    counted = []
    for compact in (False, True):
        trainer = PatTrainer(
            model=model_of(), args=arguments(tmp_path), train_dataset=RandomRows(), callbacks=[PatCallback(compact=compact)]
        )
        trainer.train()
        counted.append(trainer.state.total_flos)
    assert counted[1] < counted[0]
