"""What a training took counts what its checkpoint took."""

from __future__ import annotations

from pathlib import Path

import pytest

from pat.training import spent
from pat.training.spent import SPENT_RECORD, Spent


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    now = {"s": 100.0, "gib": 3.0}
    monkeypatch.setattr("time.monotonic", lambda: now["s"])
    monkeypatch.setattr(spent, "peak_memory_gib", lambda: now["gib"])
    return now


def test_time_and_memory_up_to_a_checkpoint_are_counted_and_what_was_lost_is_not(clock: dict[str, float], tmp_path: Path) -> None:
    first = Spent()
    clock["s"] += 40
    first.write(tmp_path)
    clock |= {"s": 170.0, "gib": 5.0}  # killed: thirty seconds, and memory, behind the checkpoint
    clock |= {"s": 1000.0, "gib": 2.0}  # another process, whose clock and memory are its own
    second = Spent()
    second.go_on_from(tmp_path)
    clock["s"] += 7
    assert second.so_far() == {"wall_s": 47.0, "peak_memory_gib": 3.0}
    clock["gib"] = 4.0
    assert second.so_far()["peak_memory_gib"] == 4.0


def test_a_checkpoint_of_an_earlier_version_says_nothing(clock: dict[str, float], tmp_path: Path) -> None:
    assert not (tmp_path / SPENT_RECORD).exists()
    begun = Spent()
    begun.go_on_from(tmp_path)
    assert begun.so_far() == {"wall_s": 0.0, "peak_memory_gib": 3.0}
