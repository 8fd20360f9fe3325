"""A tuning that a pruning cuts in two: its parts have the steps of the whole, and no more."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from pat.settings.jobs import TuneJob
from study.experiment.parts import in_two, too_short

ROWS = (7, 33, 64, 65, 1000)


def job(fraction: float, **length: Any) -> TuneJob:
    return TuneJob.model_validate({"tuning": {"learning_rate": 1e-3, "batch_size": 4, **length}, "pat": {"milestone_fraction": fraction}})


@pytest.mark.parametrize(("epochs", "fraction"), [*product((0.7, 1.0, 1.5, 3.0), (0.1, 1 / 3, 0.5, 0.7, 0.9))])
def test_passes_over_the_rows_come_to_as_many_steps_in_two_parts_as_in_one(epochs: float, fraction: float) -> None:
    whole = job(fraction, epochs=epochs)
    before, after = in_two(whole)
    for rows in ROWS:
        steps = whole.tuning.steps_for(rows)
        assert before.steps_for(rows) + after.steps_for(rows) == steps
        assert before.steps_for(rows) == whole.pat.milestone_of(steps), "the cut stands where PAT's milestone would"


def test_a_part_is_written_and_read_again_as_it_is() -> None:
    whole = job(1 / 3, epochs=2.0)
    for part in in_two(whole):
        assert TuneJob.model_validate_json(whole.model_copy(update={"tuning": part}).model_dump_json()).tuning == part
    assert "share" not in whole.model_dump_json()


def test_a_part_without_a_share_of_the_passes_is_told() -> None:
    assert too_short(job(0.5, epochs=2.0)) is None
    assert "leaves nothing after the cut" in str(too_short(job(1.0, epochs=2.0)))
