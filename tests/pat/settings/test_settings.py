"""Settings: every mistake is one message that names the field, the value and what is allowed, and all come at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from pat.errors import UserError
from pat.settings.config import PatChoices
from pat.settings.fields import Settings
from pat.settings.jobs import EvaluationSettings, PretrainSettings, PruneSettings, TuneJob, TuningSettings
from pat.settings.mistakes import load, nearest, shown

TUNING: dict[str, Any] = {"max_steps": 10, "learning_rate": 1e-3, "batch_size": 8}
SHAPE: dict[str, Any] = {"vocab_size": 100, "hidden_size": 32, "layers": 1, "heads": 4, "intermediate_size": 8, "context_length": 16}
PRETRAIN: dict[str, Any] = {**SHAPE, "steps": 1, "batch_size": 1, "learning_rate": 1e-3}


@pytest.mark.parametrize(
    ("model", "valid", "change", "expected"),
    [
        (TuningSettings, TUNING, {"learning_rat": 1}, "learning_rat: unknown key; did you mean 'learning_rate'?"),
        (TuningSettings, TUNING, {"learning_rate": "fast"}, 'learning_rate: "fast" is not allowed: must be a valid number'),
        (TuningSettings, TUNING, {"learning_rate": float("inf")}, "learning_rate: Infinity is not allowed"),
        (TuningSettings, TUNING, {"batch_size": True}, "batch_size: true is not allowed: must be a valid integer"),
        (TuningSettings, TUNING, {"batch_size": 0}, "batch_size: 0 is not allowed: must be greater than 0"),
        (TuningSettings, TUNING, {"micro_batch_size": 3}, "micro_batch_size: 3 is not allowed: must divide batch_size, which is 8"),
        (TuningSettings, TUNING, {"micro_batch_size": 4, "memory_gib": 6.0}, "memory_gib: 6.0 is not allowed: must be left out unless"),
        (TuningSettings, TUNING, {"epochs": 1}, "max_steps: 10 is not allowed: give exactly one of epochs and max_steps"),
        (TuningSettings, TUNING, {"share": [0.5, 1]}, "share: [0.5, 1] is not allowed: must be left out with max_steps"),
        (TuningSettings, TUNING, {"share": [0.5, 0.5]}, "share: [0.5, 0.5] is not allowed: must begin before it ends"),
        (TuningSettings, TUNING, {"schedule": "cosin"}, "schedule: \"cosin\" is not allowed: must be 'cosine', 'linear' or 'constant'"),
        (TuningSettings, TUNING, {"lora": {"rank": 0}}, "lora.rank: 0 is not allowed: must be greater than 0"),
        (TuningSettings, TUNING, {"lora": 3}, "lora: 3 is not allowed: must be a mapping"),
        (PruneSettings, {}, {"size": ""}, "size: \"\" is not allowed: must be 'matched' or 'nominal'"),
        (PatChoices, {}, {"hio_rank": "dens"}, "hio_rank: \"dens\" is not allowed: must be a valid integer or must be 'dense'"),
        (PatChoices, {}, {"milestone_fraction": 0}, "milestone_fraction: 0 is not allowed: must be greater than 0"),
        (PatChoices, {}, {"closing": "at-once"}, "closing: \"at-once\" is not allowed: must be 'gradual' where the mask is trained"),
        (PatChoices, {}, {"mask": "fischer"}, "mask: \"fischer\" is not allowed: must be 'trained', 'frozen', 'leading', 'variance'"),
        (PatChoices, {}, {"align": 0}, "align: 0 is not allowed"),
        (PatChoices, {}, {"align": "ggfu"}, "align: \"ggfu\" is not allowed: must be a positive whole number, 'auto' or 'gguf'"),
        (PretrainSettings, PRETRAIN, {"heads": 3}, "heads: 3 is not allowed: must divide hidden_size (32)"),
        (PretrainSettings, PRETRAIN, {"kv_heads": 3}, "kv_heads: 3 is not allowed: must divide heads, which is 4"),
        (EvaluationSettings, {}, {"limit": 0}, "limit: 0 is not allowed: must be greater than 0"),
        (EvaluationSettings, {}, {"harness_tasks": "arc"}, 'harness_tasks: "arc" is not allowed: must be a list'),
    ],
)
def test_a_mistake_names_field_value_and_what_is_allowed(
    model: type[Settings], valid: dict[str, Any], change: dict[str, Any], expected: str
) -> None:
    with pytest.raises(UserError) as error:
        load(model, json.dumps(valid | change))
    assert f"settings: {expected}" in str(error.value)


def test_no_sentence_speaks_of_what_pydantic_calls_it() -> None:
    class Lists(Settings):
        words: tuple[str, ...] = Field(min_length=1, strict=False)
        names: dict[str, int] = Field(min_length=1)
        text: str = Field(min_length=2)

    with pytest.raises(UserError) as error:
        load(Lists, '{"words": [], "names": {}, "text": "a"}')
    said = [line.partition("not allowed: ")[2] for line in str(error.value).splitlines()]
    assert said == ["must have at least 1 item", "must have at least 1 item", "must have at least 2 characters"]


def test_all_mistakes_come_at_once_one_a_line() -> None:
    broken = {"tuning": {"learning_rate": 0, "precision": "fp8", "lora": {"rnk": 1}}, "pat": {"mask": "soft"}, "path": 1}
    with pytest.raises(UserError) as error:
        load(TuneJob, json.dumps(broken))
    fields = [line.split(": ")[1] for line in str(error.value).splitlines()]
    assert fields == [
        "tuning.max_steps",
        "tuning.learning_rate",
        "tuning.batch_size",
        "tuning.precision",
        "tuning.lora.rnk",
        "pat.mask",
        "path",
    ]


def test_settings_come_from_json_text_and_from_files_alike(tmp_path: Path) -> None:
    text = json.dumps(TUNING)
    (tmp_path / "a.json").write_text(text)
    (tmp_path / "a.yaml").write_text("max_steps: 10\nlearning_rate: 1e-3\nbatch_size: 8\n")
    assert load(TuningSettings, text) == load(TuningSettings, tmp_path / "a.json") == load(TuningSettings, str(tmp_path / "a.yaml"))


def test_a_key_is_not_called_left_out_beside_one_that_is_misspelt() -> None:
    with pytest.raises(UserError) as refused:
        load(TuningSettings, '{"max_step": 3, "learning_rate": 1e-3, "batch_size": 2}')
    assert str(refused.value).startswith("settings: max_step: unknown key; did you mean 'max_steps'?") and "\n" not in str(refused.value)
    with pytest.raises(UserError, match="give exactly one of epochs and max_steps"):
        load(TuningSettings, '{"learning_rate": 1e-3, "batch_size": 2}')


def test_yaml_in_one_line_is_told_where_it_may_stand() -> None:
    with pytest.raises(
        UserError, match=r"settings: is not valid JSON .*; in one line they are JSON, keys and texts in double quotes; YAML has"
    ):
        load(PatChoices, "{mask: random}")


@pytest.mark.parametrize("content", ["a: [1", "\x00", "a: 1\na: 2\n", "- a: {b: 1, b: 2}"])
def test_broken_yaml_is_a_users_mistake(tmp_path: Path, content: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match=r"broken\.yaml"):
        load(PatChoices, path)


def test_a_key_that_stands_twice_is_named(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text("hio_rank: 8\nhio_rank: 9\n")
    with pytest.raises(UserError, match=r"'hio_rank' stands twice.*line 2"):
        load(PatChoices, path)


def test_settings_survive_their_json() -> None:
    for settings in (PatChoices(align=8), TuningSettings(**TUNING), PretrainSettings(**PRETRAIN), EvaluationSettings(limit=3)):
        assert load(type(settings), settings.model_dump_json()) == settings


def test_settings_do_not_change_after_checking() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        PatChoices().hio_rank = 3  # type: ignore[misc]


@given(st.text(alphabet="abcdefgh", max_size=8), st.lists(st.text(alphabet="abcdefgh", min_size=1, max_size=8), max_size=5))
def test_the_nearest_name_is_one_of_the_known(name: str, known: list[str]) -> None:
    hint = nearest(name, known)
    if "did you mean" in hint:
        assert any(f"did you mean {word!r}?" in hint for word in known)


@given(st.recursive(st.none() | st.booleans() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_a_shown_value_fits_a_line(value: object) -> None:
    assert len(shown(value)) <= 60
    assert "\n" not in shown(value)
