"""Widths and ranks that a shape cannot have are told before a model of its size is made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pat.benchmark import folder_jobs, tuning
from pat.benchmark.settings import MergeBenchmark, ModelShape, PruneBenchmark, TuningBenchmark
from pat.benchmark.widths import narrowed_at
from pat.errors import UserError
from pat.settings.budget import Budget
from pat.settings.mistakes import load

SHAPE = ModelShape(vocab_size=97, hidden_size=32, layers=2, heads=4, intermediate_size=48)


@pytest.mark.parametrize(
    ("measure", "settings", "said"),
    [
        (tuning.benchmark_tuning, load(TuningBenchmark, '{"pat": {"hio_rank": 33}}'), r"settings: pat\.hio_rank: 33 is .* hidden size, 32"),
        (tuning.benchmark_tuning, load(TuningBenchmark, '{"ratio": 0.999}'), r"settings: ratio: pruning ratio 0\.999: .* nothing stays"),
        (folder_jobs.benchmark_merge, load(MergeBenchmark, '{"hio_rank": 33}'), r"settings: hio_rank: 33 is .* hidden size, 32"),
        (folder_jobs.benchmark_merge, load(MergeBenchmark, '{"ratio": {"parameters": 3}, "hio_rank": 2}'), "settings: ratio: budget of 3"),
    ],
)
def test_what_cannot_be_is_told_first(
    measure: Callable[..., object], settings: Any, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_yet(*_arguments: object) -> None:
        raise AssertionError("a model of a real shape takes minutes")

    monkeypatch.setattr(tuning, "random_model", not_yet)
    monkeypatch.setattr(folder_jobs, "write_random_checkpoint", not_yet)
    with pytest.raises(UserError, match=said):
        measure(SHAPE, settings, 0, tmp_path / "out.json")


@pytest.mark.parametrize(
    ("pruner", "asked", "settings", "said"),
    [
        ("magic", 0.25, "{}", "--pruner 'magic': must be one of"),
        ("slicegpt", 0.25, '{"prune": {"writers": "refitted"}}', "writers: has no effect on --pruner slicegpt"),
        ("channel-fisher", 0.999, "{}", "nothing stays"),
        ("wanda-sp", 0.999, "{}", r"hold too little of the model for that; at most \d"),
        ("shortgpt", 0.01, "{}", "the nearest number of layers to drop is 0 of 2"),
        ("shortgpt", Budget(parameters=3), "{}", "with a single layer of 2"),
    ],
)
def test_what_a_pruner_cannot_do_is_told_first(
    pruner: str, asked: float | Budget, settings: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_yet(*_arguments: object) -> None:
        raise AssertionError("a model of a real shape takes minutes")

    monkeypatch.setattr(folder_jobs, "write_random_checkpoint", not_yet)
    with pytest.raises(UserError, match=said):
        folder_jobs.benchmark_prune(SHAPE, pruner, asked, load(PruneBenchmark, settings), 0, tmp_path / "out.json")


def test_what_can_be_is_its_ratio() -> None:
    assert narrowed_at(SHAPE, 0.25, "auto", 2, "dense") == narrowed_at(SHAPE, 0.25, "auto", 2, 32) == 0.25
