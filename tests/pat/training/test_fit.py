"""What a tuning's settings may ask of its steps, told by the settings' own names."""

from __future__ import annotations

from typing import Any

import pytest

from pat.errors import SettingError
from pat.settings.config import PatChoices
from pat.settings.jobs import TuneJob, TuningSettings
from pat.training.fit import check_milestone, check_steps

ROWS = 8


def job(closing: str = "gradual", **length: Any) -> TuneJob:
    mask: dict[str, Any] = {"mask": "random", "closing": closing} if closing != "gradual" else {}
    return TuneJob(tuning=TuningSettings(learning_rate=1e-3, batch_size=4, **length), pat=PatChoices(**mask))


@pytest.mark.parametrize(
    ("length", "named"),
    [({"max_steps": 4}, r"tuning\.max_steps: .* 4 steps.*step 1"), ({"epochs": 2}, r"tuning\.epochs: .* 8 rows takes 4 steps")],
)
def test_a_mask_that_closes_gradually_needs_steps_for_it(length: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingError, match=named):
        check_milestone(job(**length), ROWS)


def test_two_steps_are_enough_and_a_mask_that_is_closed_needs_none() -> None:
    check_milestone(job(max_steps=5), ROWS)
    check_milestone(job(max_steps=1, closing="at-once"), ROWS)


@pytest.mark.parametrize(
    ("length", "said"),
    [
        ({"epochs": 2, "warmup_steps": 5}, r"tuning\.warmup_steps: 5 is not allowed: the run of 8 rows takes 4 steps"),
        (
            {"epochs": 2, "warmup_steps": 3, "share": (0.5, 1.0)},
            r"tuning\.warmup_steps: 3 is not allowed: the part from 0\.5 to 1 of the run of 8 rows takes 2 steps",
        ),
        (
            {"epochs": 2, "share": (0.0, 0.1)},
            r"tuning\.epochs: 2 is not allowed: the part from 0 to 0\.1 of the run of 8 rows takes 0 steps",
        ),
    ],
)
def test_a_run_has_steps_and_more_of_them_than_its_warm_up(length: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        check_steps(job(**length), ROWS)
    check_steps(job(**length | {"epochs": 20}), ROWS)
