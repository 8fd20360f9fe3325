"""What checkpoints are scored on: every model is scored on something, and on the items of the others."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from study.experiment.file import load_experiment
from study.experiment.schema import Experiment
from tests.kit.experiments import SMOKE, refusal

UNSCORED = {"generate": False, "log_likelihood": False}
OF_TASKS = {"accuracy", "methods", "trainable", "memory"}


def scored(*own: dict[str, Any], **everywhere: Any) -> dict[str, Any]:
    """The smoke experiment with a model `m0`, `m1`, … for each of these differences from `evaluation`."""
    raw = deepcopy(SMOKE)
    raw["models"] = {f"m{place}": {**SMOKE["models"]["tiny"], "evaluation": each} for place, each in enumerate(own)}
    raw["evaluation"] |= everywhere
    return raw


def loaded(raw: dict[str, Any]) -> Experiment:
    return load_experiment(raw, "x.yaml")


@pytest.mark.parametrize(
    ("own", "everywhere", "told"),
    [
        (({}, {"limit": 10}), {"limit": 60}, "models.m1.evaluation.limit: 10 is not allowed: must be 60, as for models.m0"),
        (({"limit": 10}, {}), {}, "models.m0.evaluation.limit: 10 is not allowed: must be left out, as for models.m1"),
        (({"limit": 10}, {"limit": None}), {}, "models.m1.evaluation.limit: null is not allowed: must be 10, as for models.m0"),
        (({}, {"group_limit": 5}), {"limit": 10}, "models.m1.evaluation.group_limit: 5 is not allowed: must be 10, as for models.m0"),
        (({}, {"group_limit": 5}), {"group_limit": 4}, "models.m1.evaluation.group_limit: 5 is not allowed: must be 4, as for models.m0"),
        (({}, {**UNSCORED, "limit": 3}), {}, "models.m1.evaluation.limit: 3 is not allowed"),
    ],
)
def test_models_with_other_items_than_the_rest_are_told(own: tuple[dict[str, Any], ...], everywhere: dict[str, Any], told: str) -> None:
    [line] = refusal(scored(*own, **everywhere))
    field = told.partition(":")[0].rpartition(".")[2]
    assert line.startswith(told) and line.endswith(f"to change it for all, set evaluation.{field}")


@pytest.mark.parametrize(
    ("own", "everywhere"),
    [
        (({"limit": 10}, {"limit": 10}), {"limit": 60}),
        (({}, {"limit": 10}), {"limit": 10}),
        (({}, {"group_limit": 10}), {"limit": 10}),
        (({"text_limit": 2}, {"text_limit": "all", "perplexity_context": 32}), {"limit": 10}),
        (({"limit": 10},), {"limit": 60}),
    ],
)
def test_models_with_the_same_items_may_say_so_each_in_its_own_way(own: tuple[dict[str, Any], ...], everywhere: dict[str, Any]) -> None:
    loaded(scored(*own, **everywhere))


def test_limits_of_texts_alone_and_of_different_tasks_of_lm_eval_may_differ() -> None:
    raw = scored({"limit": 10}, {"limit": 20})
    del raw["data"]["tasks"]
    loaded(raw)
    for model, task in (("m0", "arc_easy"), ("m1", "piqa")):
        raw["models"][model]["evaluation"]["harness_tasks"] = [task]
    loaded(raw)
    raw["models"]["m1"]["evaluation"]["harness_tasks"] = ["piqa", "arc_easy"]
    assert [line.partition(" is ")[0] for line in refusal(raw)] == ["models.m1.evaluation.limit: 20"]


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (scored({}, **UNSCORED), "evaluation.generate: is false, and so is evaluation.log_likelihood, so nothing is evaluated"),
        (scored({}, UNSCORED), "evaluation.generate: is false for models.m1, and so is evaluation.log_likelihood"),
    ],
)
def test_a_model_whose_tasks_are_scored_in_no_way_is_told_where_there_is_nothing_else(raw: dict[str, Any], told: str) -> None:
    loaded(raw)
    del raw["data"]["text"]
    [line] = refusal(raw)
    assert line.startswith(told)
    raw["evaluation"]["harness_tasks"] = ["piqa"]
    loaded(raw)


def test_a_model_without_the_others_tasks_of_lm_eval_is_told_where_there_is_nothing_else() -> None:
    raw = scored({"harness_tasks": ["piqa"]}, {})
    del raw["data"]["text"], raw["data"]["tasks"]
    [line] = refusal(raw)
    assert line.startswith("data.tasks: is empty, and so are data.text and evaluation.harness_tasks for models.m1: name at least one")
    raw["models"]["m1"]["evaluation"] = {"harness_tasks": ["arc_easy"]}
    loaded(raw)


def test_figures_of_accuracies_are_drawn_where_a_model_has_one() -> None:
    every = set(loaded(scored({}, {})).drawn())
    assert every >= OF_TASKS
    assert set(loaded(scored({}, UNSCORED)).drawn()) == every
    none = scored({}, {}, **UNSCORED)
    assert set(loaded(none).drawn()) == every - OF_TASKS
    for figure in OF_TASKS:
        assert refusal(none | {"figures": [figure]}) == [
            f'figures: "{figure}" needs evaluation.generate or evaluation.log_likelihood, which the experiment does not have'
        ]
