"""Operators that learn: a planted task, what the pinned form leaves of it, and adapters from before there was a choice of form."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch

from pat import PatConfig, PatModel, attach
from pat.errors import UserError
from pat.settings.config import PatChoices
from pat.settings.mistakes import load
from tests.kit.planted import Planted, learned, loss_of, planted
from tests.kit.tiny_models import random_tokens, tiny_model
from tests.kit.training import trained


@pytest.fixture(scope="module")
def task() -> Planted:
    return planted()


@pytest.fixture(scope="module")
def by_defaults(task: Planted) -> PatModel:
    return learned(task, learning_rate=1e-2, steps=80)


def closed_share(task: Planted, model: PatModel) -> float:
    """Return how much of the loss that the turning costs is made up for."""
    straight, turned = loss_of(task.straight, task.tokens_NT), loss_of(task.turned, task.tokens_NT)
    assert turned > straight + 1.0
    return (turned - loss_of(model, task.tokens_NT)) / (turned - straight)


def mean_distance(model: PatModel) -> float:
    return fmean(hsm.operator.distance_from_identity().item() for hsm in model.sparsifier.by_write().values())


@pytest.mark.lengthy
def test_by_the_shipped_defaults_operators_leave_the_identity_and_undo_a_planted_rotation(task: Planted, by_defaults: PatModel) -> None:
    assert mean_distance(by_defaults) > 1.0
    assert closed_share(task, by_defaults) > 0.9


def test_without_operators_nothing_is_there_to_undo_it(task: Planted) -> None:
    model = attach(planted().turned, PatConfig(pruning_ratio=0.0, hio_rank=0, lora_rank=1))
    assert not any(parameter.requires_grad for name, parameter in model.named_parameters() if ".lora_" not in name and "proxy" not in name)
    assert closed_share(task, model) == pytest.approx(0.0, abs=1e-4)


@pytest.mark.lengthy
def test_at_a_small_rate_free_operators_move_and_pinned_ones_do_not(task: Planted) -> None:
    free = learned(task, learning_rate=1e-3, steps=60)
    pinned = learned(task, learning_rate=1e-3, steps=60, operators="pinned")
    assert closed_share(task, free) > 0.4 and mean_distance(free) > 0.3
    assert closed_share(task, pinned) < 0.1 and mean_distance(pinned) < 0.15


@pytest.mark.lengthy
def test_the_identity_loss_holds_l0_near_orthogonal_while_the_operator_moves(task: Planted, by_defaults: PatModel) -> None:
    def gap(model: PatModel) -> float:
        downs: list[Any] = [hsm.operator for hsm in model.sparsifier.by_write().values()]
        return fmean((it.down @ it.down.T - torch.eye(len(it.down))).norm().item() / len(it.down) ** 0.5 for it in downs)

    loose = learned(task, learning_rate=1e-2, steps=80, identity_weight=0.0)
    assert gap(by_defaults) < 0.1 and gap(loose) > 0.5


@pytest.mark.parametrize(("choices", "form"), [({"operators": "pinned"}, "pinned"), ({"variant": "release"}, "free")])
def test_an_adapter_that_names_no_form_opens_as_what_all_were(choices: dict[str, Any], form: str, tmp_path: Path) -> None:
    model = trained("llama-grouped", **choices)
    model.save_pretrained(str(tmp_path))
    written = tmp_path / "pat_config.json"
    written.write_text(json.dumps({name: value for name, value in json.loads(written.read_text()).items() if name != "operators"}))
    loaded = PatModel.from_pretrained(tiny_model("llama-grouped"), tmp_path)
    assert loaded.pat_config.operators == form and loaded.pat_config == model.pat_config
    tokens = random_tokens()
    with torch.no_grad():
        assert torch.equal(model(input_ids=tokens).logits, loaded(input_ids=tokens).logits)


@pytest.mark.parametrize("operators", ["free", "pinned"])
def test_both_forms_merge_to_what_they_compute(operators: str) -> None:
    model: Any = trained("llama", operators=operators)
    tokens = random_tokens()
    with torch.no_grad():
        gap = (model(input_ids=tokens).logits - model.merge_and_unload()(input_ids=tokens).logits).abs().max()
    assert gap < 1e-4


def test_pinned_operators_of_the_release_are_refused() -> None:
    with pytest.raises(ValueError, match="released operators start in their own way"):
        PatConfig(pruning_ratio=0.25, operators="pinned", variant="release")
    with pytest.raises(UserError, match="variant: \"release\" is not allowed: must be 'paper' with operators: pinned"):
        load(PatChoices, '{"operators": "pinned", "variant": "release"}')
    with pytest.raises(UserError, match="operators: \"loose\" is not allowed: must be 'free' or 'pinned'"):
        load(PatChoices, '{"operators": "loose"}')
