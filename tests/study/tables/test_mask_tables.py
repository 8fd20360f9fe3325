"""What trained masks chose, in table, summary and health line: the overlap with the Fisher order, always beside chance."""

from __future__ import annotations

from pathlib import Path

from study.report.sentences import health_lines
from study.results.cells import read_cells
from study.results.grid import Grid
from study.results.milestones import choice, overlaps
from study.tables.masks import mask_notes, trained_masks
from tests.kit.cell_maker import cell, write_cell


def masked(seed: int, found: float) -> dict[str, object]:
    made = cell("pat", 0.5, seed)
    health = {"milestone_step": 8, "kept_at_milestone": 48, "loss_before_milestone": 1.0, "loss_after_milestone": 1.0}
    return made | {"tuning": {"health": health | {"fisher_overlap": found, "chance_overlap": 0.5}}}


def test_the_overlap_stands_beside_chance(tmp_path: Path) -> None:
    paths = [write_cell(tmp_path, one) for one in (masked(0, 0.7), masked(1, 0.8), cell("lora", 0.0))]
    cells = read_cells(paths)
    table = trained_masks(Grid(cells, "acc"))
    assert table is not None
    layout, frame = table
    assert [row[-2:] for row in layout.rows] == [["75", "50"]]
    assert frame["fisher_overlap"].tolist() == [0.75] and frame["seeds"].tolist() == [2]
    said = [line for line in health_lines(cells) if "Fisher" in line]
    assert len(said) == 2 and "of the mask's channels 70% are the Fisher order's, by chance 50%" in said[0]


def test_rows_whose_gates_were_left_half_open_are_named_below_the_tables(tmp_path: Path) -> None:
    half = masked(0, 0.5)
    half["tuning"]["health"]["undecided"] = 90  # type: ignore[index]
    cells = read_cells([write_cell(tmp_path, one) for one in (half, cell("lora", 0.0))])
    assert mask_notes(cells) == ["Gates half open at the end of the tuning, and rounded in what is evaluated: PAT at 50 %."]
    assert mask_notes([one for one in cells if one.row.method == "lora"]) == []
    assert any(line.startswith("UNDECIDED: gates that neither") for line in health_lines(cells))


def test_without_trained_masks_there_is_no_table(tmp_path: Path) -> None:
    cells = read_cells([write_cell(tmp_path, one) for one in (cell("pat", 0.5), cell("lora", 0.0))])
    assert trained_masks(Grid(cells, "acc")) is None
    assert overlaps(None) is None and overlaps({"fisher_overlap": None}) is None and choice({}) == ""
