"""The figures over cells: their data, their files and that equal data give equal bytes."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from cell_maker import cell, write_cell

import figures
import gate_figure
from figure_style import look_of
from pat.errors import UserError


def test_accuracy_figure_shows_what_its_csv_says(tmp_path: Path) -> None:
    contents = [cell("lora", 0.0), cell("pat", 0.25), cell("pat", 0.5), cell("pat", 0.25, model="other")]
    paths = [write_cell(tmp_path, content) for content in contents]
    assert figures.write_figures(paths, tmp_path / "out") == "first_capital"
    frame = pd.read_csv(tmp_path / "out" / "accuracy.csv")
    points = list(zip(frame["model"], frame["method"], frame["ratio"], strict=True))
    assert points == [("other", "pat", 0.25), ("tiny", "lora", 0.0), ("tiny", "pat", 0.25), ("tiny", "pat", 0.5)]
    assert set(frame["accuracy"]) == {0.6} and set(frame["chance"]) == {0.25}


def test_accuracy_figure_is_the_same_in_any_order_of_cells(tmp_path: Path) -> None:
    paths = [write_cell(tmp_path, cell("pat", ratio, seed)) for ratio in (0.25, 0.5) for seed in range(2)]
    figures.write_figures(paths, tmp_path / "one")
    figures.write_figures(paths[::-1], tmp_path / "two")
    for name in ("accuracy.csv", "accuracy.png", "accuracy.pdf"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_accuracy_figure_refuses_cells_without_accuracies(tmp_path: Path) -> None:
    path = write_cell(tmp_path, cell() | {"tasks": {}})
    with pytest.raises(UserError, match="no cell has an accuracy"):
        figures.write_figures([path], tmp_path / "out")


def test_gate_figure_starts_at_one_and_ends_as_a_step() -> None:
    data = gate_figure.gate_values()
    assert (data["0"] == 1).all()
    assert set(data["1"]) == {0, 1}
    for share in gate_figure.SHARES:
        assert data[f"{share:g}"].is_monotonic_increasing
    assert data["0.5"].iloc[len(data) // 2] == pytest.approx(0.5)  # the offset is gone half-way


def test_no_two_of_many_methods_look_alike() -> None:
    looks = [look_of(position) for position in range(49)]
    assert len(set(looks)) == 49
    assert len({colour for colour, _ in looks[:7]}) == len({marker for _, marker in looks[:7]}) == 7
