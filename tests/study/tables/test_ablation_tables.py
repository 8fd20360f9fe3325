"""Ablation tables and table 3 from hand-made cells: rows by their factors, the paper's numbers beside them where they are its cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pat.errors import UserError
from pat.settings.mistakes import load
from study.experiment.table_settings import Factor, TableSettings
from study.tables import writing as tables
from tests.kit.cell_maker import cell, write_cell

MASK = TableSettings(ablations={"mask": ("trainable mask", "identity loss")})


def variant(name: str, factors: dict[str, Factor], accuracy: float, model: str = "llama2-7b") -> dict[str, Any]:
    scores = {"capitals": {"first_capital": accuracy, "acc": accuracy}}
    return cell("pat", 0.25, model=model, scores=scores, label=f"PAT, {name}", factors=factors) | {"method": name}


ROWS = [
    cell("lora", 0.0, model="llama2-7b"),
    variant("pat", {"trainable mask": True, "identity loss": True}, 0.6),
    variant("pat-no-identity", {"trainable mask": True, "identity loss": False}, 0.58),
    variant("pat-frozen", {"trainable mask": False, "identity loss": True}, 0.5),
    variant("elsewhere", {}, 0.4),
]


def written(folder: Path, contents: list[dict[str, Any]], settings: TableSettings) -> Path:
    tables.write_tables([write_cell(folder / "cells", content) for content in contents], folder / "tables", settings)
    return folder / "tables"


def entries(path: Path) -> list[list[str]]:
    lines = [line for line in path.read_text().splitlines() if line.startswith("|")]
    return [[entry.strip() for entry in line.strip("|").split("|")] for line in lines]


def test_an_ablation_has_the_rows_with_its_factors_in_their_order_and_the_papers_numbers(tmp_path: Path) -> None:
    out = written(tmp_path, ROWS, MASK)
    header, _, _, *rows = entries(out / "ablation_mask.md")
    assert header == ["Pruned", "Method", "trainable mask", "identity loss", "llama2-7b", "paper", "Δ"]
    assert [(row[0], *row[2:4], *row[5:]) for row in rows] == [
        ("0 %", "–", "–", "58.76", "+1.2"),
        ("25 %", "no", "yes", "54.97", "−5.0"),
        ("25 %", "yes", "no", "58.62", "−0.6"),
        ("25 %", "yes", "yes", "60.02", "−0.0"),
    ]
    assert "printed in table 2" in (out / "ablation_mask.md").read_text()
    assert list(pd.read_csv(out / "ablation_mask.csv")["trainable mask"]) == ["–", "no", "yes", "yes"]
    assert "paper" not in entries(out / "ablation_mask_acc.md")[0]


def test_a_row_stands_in_every_table_of_its_factors_and_a_variant_borrows_no_number(tmp_path: Path) -> None:
    both: dict[str, Factor] = {"trainable mask": True, "identity loss": True}
    rows = [variant("pat", both | {"basis": "native"}, 0.6), variant("pat-pca", {"basis": "pca"}, 0.7)]
    out = written(tmp_path, rows, TableSettings(ablations={**MASK.ablations, "basis": ("basis",)}))
    assert entries(out / "ablation_mask.md")[-1][4:] == ["60.0 ± 9.6", "60.02", "−0.0"]
    assert [row[1:] for row in entries(out / "ablation_basis.md")[3:]] == [
        ["PAT, pat", "native", "60.0 ± 9.6"],
        ["PAT, pat-pca", "pca", "70.0 ± 9.0"],
    ]
    out = written(tmp_path / "variant", [variant("pat-pca", both, 0.7)], MASK)
    assert "paper" not in entries(out / "ablation_mask.md")[0]


def test_numbers_among_factors_are_sorted_as_numbers(tmp_path: Path) -> None:
    rows = [variant(f"rank{rank}", {"HIO rank": rank}, 0.5) for rank in (26, 8, 0)]
    out = written(tmp_path, [*rows, variant("dense", {"HIO rank": "dense"}, 0.5)], TableSettings(ablations={"rank": ("HIO rank",)}))
    assert [row[2] for row in entries(out / "ablation_rank.md")[3:]] == ["0", "8", "26", "dense"]


def test_table_3_replaces_table_1_and_has_its_own_numbers(tmp_path: Path) -> None:
    rows = [("lora", 0.0), ("dora", 0.0), ("pat", 0.25), ("pat-dora", 0.25)]
    out = written(tmp_path, [cell(name, ratio, model="llama-2-13b") for name, ratio in rows], TableSettings(accuracy="table3"))
    assert not (out / "table1.md").exists()
    assert [row[4] for row in entries(out / "table3.md")[3:]] == ["76.24", "77.36", "76.08", "77.02"]
    assert "printed in table 3" in (out / "table3.md").read_text()


def test_factors_that_differ_within_a_row_are_refused(tmp_path: Path) -> None:
    other = variant("pat", {"trainable mask": False, "identity loss": True}, 0.6) | {"seed": 1}
    with pytest.raises(UserError, match="factors of the row of pat"):
        written(tmp_path, [ROWS[1], other], MASK)


def test_settings_of_tables_come_as_one_argument() -> None:
    assert load(TableSettings, '{"ablations": {"mask": ["trainable mask", "identity loss"]}}') == MASK
    with pytest.raises(UserError, match="ablation: unknown key; did you mean 'ablations'"):
        load(TableSettings, '{"ablation": {}}')
