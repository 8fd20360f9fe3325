"""Checks that settings share, on settings made for them."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import AfterValidator, ValidationError, field_validator

from pat.settings.agreement import at_most, divides, each_once, exactly_one_of
from pat.settings.fields import Count, Settings
from pat.settings.mistakes import problems


class Trip(Settings):
    """How far, by what, with how many, and where to."""

    miles: Count | None = None
    hours: Count | None = None
    days: Count | None = None
    seats: Count = 12
    rows: Count | str = 3
    guests: Count | None = None
    stops: Annotated[tuple[float | str, ...], AfterValidator(each_once)] = ()

    _one_length = field_validator("days")(exactly_one_of("miles", "hours", "days"))
    _even_rows = field_validator("rows")(divides("seats"))
    _seated = field_validator("guests")(at_most("seats"))


@pytest.mark.parametrize(
    "given",
    [
        {"miles": 3, "days": None},
        {"days": 2},
        {"rows": 4},
        {"rows": "auto"},
        {"guests": 12},
        {"guests": None},
        {"stops": (0.1, 0.2, "a")},
    ],
)
def test_what_agrees_is_taken(given: dict[str, Any]) -> None:
    assert Trip.model_validate(given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"miles": 3, "days": 2}, "days: 2 is not allowed: give exactly one of miles, hours and days"),
        ({"days": None}, "days: null is not allowed: give exactly one of miles, hours and days"),
        ({"rows": 5}, "rows: 5 is not allowed: must divide seats, which is 12"),
        ({"guests": 13}, "guests: 13 is not allowed: must not be more than seats, which is 12"),
        ({"stops": (0.1, "a", 0.1)}, "must name each value once; 0.1 stands there more often"),
    ],
)
def test_what_does_not_is_told_under_the_later_field(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Trip.model_validate(given)
    (line,) = problems(Trip, refused.value)
    assert said in line


def test_nothing_is_said_beside_a_field_that_is_refused_itself() -> None:
    with pytest.raises(ValidationError) as refused:
        Trip.model_validate({"seats": 0, "rows": 5, "guests": 13, "miles": 0, "days": 2})
    assert [line.partition(":")[0] for line in problems(Trip, refused.value)] == ["miles", "seats"]
