"""What a run says of its operators: distances by hand, movement from the start, and the two losses' gradients apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainerCallback

from pat import PatCallback, PatConfig, PatModel, attach
from pat.method.operator_watch import FIELDS, OperatorWatch
from pat.training.health import HealthRecord
from tests.kit.tiny_models import tiny_model
from tests.kit.training_rows import RandomRows, arguments

CHOICES: dict[str, Any] = {"pruning_ratio": 0.25, "hio_rank": 4, "lora_rank": 3, "lora_dropout": 0.0}


def turned(model: PatModel) -> PatModel:
    """Move the operators away from their start, so that both losses have a gradient."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.sparsifier.hsms.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def history(model: PatModel, folder: Path, *, watch_first: bool = False, **changes: Any) -> list[dict[str, Any]]:
    callbacks: list[TrainerCallback] = [PatCallback(), HealthRecord("a run")]
    trainer = Trainer(
        model=model,
        args=arguments(folder, **changes),
        train_dataset=RandomRows(),
        callbacks=callbacks[::-1] if watch_first else callbacks,
    )
    trainer.train()
    return [entry for entry in trainer.state.log_history if "loss" in entry]


def test_distance_and_movement_by_hand() -> None:
    model = attach(tiny_model("llama"), PatConfig(**CHOICES))
    watch = OperatorWatch(model)
    fresh = watch.figures(None, 1.0)
    assert fresh == dict.fromkeys(FIELDS) | {"operator_distance": 0.0, "down_moved": 0.0, "up_moved": 0.0}
    operators: list[Any] = [hsm.operator for hsm in model.sparsifier.by_write().values()]
    with torch.no_grad():
        for operator in operators:
            operator.down.mul_(3.0)  # 2·L0 away, whose norm is 2·sqrt(R)
            operator.up[:4].copy_(torch.eye(4))  # sqrt(R) away
    moved = watch.figures(None, 1.0)
    assert moved["down_moved"] == pytest.approx(2.0, rel=1e-5) and moved["up_moved"] == pytest.approx(1.0, rel=1e-5)
    assert moved["operator_distance"] == pytest.approx(3.0 * 4**0.5, rel=1e-5)


@pytest.mark.lengthy
@pytest.mark.parametrize("choices", [{}, {"operators": "pinned", "identity_weight": 1.0}, {"variant": "release"}])
@pytest.mark.parametrize(
    ("max_grad_norm", "accumulated", "watch_first"), [(0.0, 1, False), (1e-3, 4, False), (1e-3, 1, True), (100.0, 4, True)]
)
def test_the_gradients_of_both_losses_are_told_apart(
    choices: dict[str, Any], max_grad_norm: float, accumulated: int, watch_first: bool, tmp_path: Path
) -> None:
    settings = PatConfig(**CHOICES | choices, milestone_fraction=1.0)
    batch = {"per_device_train_batch_size": 48 // accumulated, "gradient_accumulation_steps": accumulated}
    model = turned(attach(tiny_model("llama"), settings))
    found = history(model, tmp_path, watch_first=watch_first, max_steps=2, max_grad_norm=max_grad_norm, **batch)[0]

    twin = turned(attach(tiny_model("llama"), settings))
    operators = [parameter for hsm in twin.sparsifier.by_write().values() for parameter in hsm.operator.parameters()]
    rows = RandomRows()
    data = twin.eval()(input_ids=rows.tokens, labels=rows.labels).loss  # outside of training there is no other loss
    identity = twin.pat_config.weight_of_identity * twin.sparsifier.identity_loss()
    for name, loss in (("instruct_gradient", data), ("identity_gradient", identity)):
        gradients = torch.autograd.grad(loss, operators, allow_unused=True)
        expected = torch.stack([gradient.norm() for gradient in gradients if gradient is not None]).norm().item()
        assert expected > 1e-3
        assert found[name] == pytest.approx(expected, rel=1e-3), name


@pytest.mark.lengthy
@pytest.mark.parametrize(("hio_rank", "distance"), [(0, False), ("dense", True)])
def test_runs_without_factors_say_what_there_is(hio_rank: Any, distance: bool, tmp_path: Path) -> None:
    model = attach(tiny_model("llama"), PatConfig(**CHOICES | {"hio_rank": hio_rank}))
    last = history(model, tmp_path)[-1]
    assert (last["operator_distance"] is not None) == distance == (last["instruct_gradient"] is not None)
    assert last["down_moved"] is None and last["up_moved"] is None
    assert last["identity_gradient"] in (None, 0.0)


def test_only_logged_steps_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    look = OperatorWatch.look_at_gradients

    def counted(watch: OperatorWatch) -> None:
        looks.append(1)
        look(watch)

    monkeypatch.setattr(OperatorWatch, "look_at_gradients", counted)
    entries = history(attach(tiny_model("llama"), PatConfig(**CHOICES)), tmp_path, logging_steps=5)
    assert [entry["step"] for entry in entries] == [5, 10] and len(looks) == 2
    assert all(entry[name] is not None for entry in entries for name in FIELDS)
