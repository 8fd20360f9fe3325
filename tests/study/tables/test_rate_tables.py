"""What searches of a learning rate found, beside what was tried, and said below every table where the best lies at an end of that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from study.results.cells import read_cells
from study.tables.rates import rate_notes, searched_rates
from study.tables.writing import write_tables
from tests.kit.cell_maker import cell, write_cell

NOTE = (
    "Of 2 searches of a learning rate 1 found the smallest or largest candidate best, so that the best rate may lie beyond (table rates)."
)
SHORT = (
    "Of 2 searches of a learning rate 2 had fewer steps than the tuning, and what is best then need not be best at its end (table rates)."
)


def searched(method: str, ratio: float, chosen: float, seed: int = 0, steps: int | None = 100) -> dict[str, Any]:
    tried = [{"learning_rate": rate, "dev_loss": loss} for rate, loss in ((1e-3, 1.5), (2e-3, 1.25), (4e-3, None))]
    return cell(method, ratio, seed) | {
        "tuning": {"learning_rate": chosen, "steps": 300, "search": {"candidates": tried, "dev_rows": 64, "steps": steps}}
    }


def test_each_search_is_one_line_whatever_its_seeds(tmp_path: Path) -> None:
    made = [searched("pat", 0.5, 2e-3), searched("pat", 0.5, 2e-3, seed=1), searched("lora", 0.0, 1e-3), cell("slicegpt-pft", 0.5)]
    paths = [write_cell(tmp_path, one) for one in made]
    table = searched_rates(read_cells(paths))
    assert table is not None
    layout, frame = table
    tried = "0.001: 1.500, 0.002: 1.250, 0.004: –"
    assert [row[-2:] for row in layout.rows] == [["0.001†", tried], ["0.002", tried]]
    assert (
        layout.notes[0] == "Each candidate was tuned for 100 of the tuning's 300 steps; rows kept apart: 64. –: diverged."
        and "†" in layout.notes[1]
    )
    assert frame["chosen"].tolist() == [True, False, False, False, True, False] and frame["dev_loss"].isna().sum() == 2
    out = tmp_path / "tables"
    assert "rates" in write_tables(paths, out)
    assert all(note in (out / f"{name}.md").read_text() for name in ("table1", "sizes", "rates") for note in (NOTE, SHORT))


def test_nothing_is_said_where_the_best_lies_between(tmp_path: Path) -> None:
    paths = [write_cell(tmp_path, searched("pat", 0.5, 2e-3, steps=None))]
    out = tmp_path / "tables"
    write_tables(paths, out)
    text = (out / "rates.md").read_text()
    assert "as many steps as the tuning" in text and "†" not in text and "beyond" not in text and "fewer steps" not in text


def test_losses_that_the_rows_do_not_tell_apart_are_marked(tmp_path: Path) -> None:
    made = searched("pat", 0.5, 2e-3, steps=300)
    first, best, _ = made["tuning"]["search"]["candidates"]
    first |= {"difference_error": 0.2, "told_apart": False}
    best |= {"difference_error": None, "told_apart": None}
    table = searched_rates(read_cells([write_cell(tmp_path, made)]))
    assert table is not None and table[0].rows[0][-1] == "0.001: 1.500≈, 0.002: 1.250, 0.004: –"
    assert table[0].notes[0].startswith("Each candidate was tuned for 300 steps;") and table[0].notes[1].startswith("≈: above the smallest")


def test_rows_and_ratios_that_share_a_search_are_one_line_of_what_was_searched(tmp_path: Path) -> None:
    """FT→P prunes what LoRA has tuned; FT→P→FT is searched unpruned, for all ratios. Here five rows come from two searches."""
    made = [searched("lora", 0.0, 1e-3), *(searched("slicegpt-ftp", ratio, 1e-3) for ratio in (0.25, 0.5))]
    made += [searched("slicegpt-ftpft", ratio, 2e-3) for ratio in (0.25, 0.5)]
    cells = read_cells([write_cell(tmp_path, one) for one in made])
    table = searched_rates(cells)
    assert table is not None
    assert [row[1:5] for row in table[0].rows] == [["LoRA", "", "0 %", "0.001†"], ["SliceGPT", "FT→P→FT", "0 %", "0.002"]]
    assert table[1]["ratio"].tolist() == [0.0] * 6 and rate_notes(cells) == [NOTE, SHORT]


def test_a_tuning_in_two_parts_has_the_steps_of_both(tmp_path: Path) -> None:
    """A search tries them as one, so that it can be longer than either and yet too short."""
    made = searched("slicegpt-ftpft", 0.25, 2e-3, steps=400) | {"tuning_before": {"learning_rate": 2e-3, "steps": 200}}
    cells = read_cells([write_cell(tmp_path, made)])
    table = searched_rates(cells)
    assert table is not None and table[0].notes[0].startswith("Each candidate was tuned for 400 of the tuning's 500 steps;")
    assert rate_notes(cells) == [
        "The search of a learning rate had fewer steps than the tuning, and what is best then need not be best at its end (table rates)."
    ]


def test_without_a_search_there_is_no_table(tmp_path: Path) -> None:
    cells = read_cells([write_cell(tmp_path, one) for one in (cell("pat", 0.5) | {"tuning": {"learning_rate": 1e-3}}, cell("base", 0.0))])
    assert searched_rates(cells) is None
