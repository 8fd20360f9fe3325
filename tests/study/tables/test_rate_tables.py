"""What searches of a learning rate found, beside what was tried, and said below every table where the best lies at an end of that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from study.results.cells import read_cells
from study.tables.rates import searched_rates
from study.tables.writing import write_tables
from tests.kit.cell_maker import cell, write_cell

NOTE = (
    "Of 2 searches of a learning rate 1 found the smallest or largest candidate best, so that the best rate may lie beyond (table rates)."
)


def searched(method: str, ratio: float, chosen: float, seed: int = 0, steps: int | None = 100) -> dict[str, Any]:
    tried = [{"learning_rate": rate, "dev_loss": loss} for rate, loss in ((1e-3, 1.5), (2e-3, 1.25), (4e-3, None))]
    return cell(method, ratio, seed) | {
        "tuning": {"learning_rate": chosen, "search": {"candidates": tried, "dev_rows": 64, "steps": steps}}
    }


def test_each_search_is_one_line_whatever_its_seeds(tmp_path: Path) -> None:
    made = [searched("pat", 0.5, 2e-3), searched("pat", 0.5, 2e-3, seed=1), searched("lora", 0.0, 1e-3), cell("slicegpt-pft", 0.5)]
    paths = [write_cell(tmp_path, one) for one in made]
    table = searched_rates(read_cells(paths))
    assert table is not None
    layout, frame = table
    tried = "0.001: 1.500, 0.002: 1.250, 0.004: –"
    assert [row[-2:] for row in layout.rows] == [["0.001†", tried], ["0.002", tried]]
    assert layout.notes[0] == "Each candidate was tuned for 100 steps; rows kept apart: 64. –: diverged." and "†" in layout.notes[1]
    assert frame["chosen"].tolist() == [True, False, False, False, True, False] and frame["dev_loss"].isna().sum() == 2
    out = tmp_path / "tables"
    assert "rates" in write_tables(paths, out)
    assert all(NOTE in (out / f"{name}.md").read_text() for name in ("table1", "sizes", "rates"))


def test_nothing_is_said_where_the_best_lies_between(tmp_path: Path) -> None:
    paths = [write_cell(tmp_path, searched("pat", 0.5, 2e-3, steps=None))]
    out = tmp_path / "tables"
    write_tables(paths, out)
    text = (out / "rates.md").read_text()
    assert "as many steps as the tuning" in text and "†" not in text and "beyond" not in text


def test_without_a_search_there_is_no_table(tmp_path: Path) -> None:
    cells = read_cells([write_cell(tmp_path, one) for one in (cell("pat", 0.5) | {"tuning": {"learning_rate": 1e-3}}, cell("base", 0.0))])
    assert searched_rates(cells) is None
