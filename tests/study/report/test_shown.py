"""Which tables Snakemake's report shows, and that each has a caption in the folder of captions."""

from __future__ import annotations

from pathlib import Path

from study.report.shown import APART, CAPTIONS, KINDS, shown_tables
from study.tables.writing import write_tables
from tests.kit.cell_maker import cell, write_cell
from tests.kit.project import ROOT

RULES = ROOT / "workflow" / "rules"


def test_every_table_is_shown_with_what_it_is(tmp_path: Path) -> None:
    scores = {"capitals": {"first_capital": 0.5, "acc_norm": 0.25}}
    contents = [cell("lora", 0.0, scores=scores), cell("pat", 0.25, scores=scores)]
    written = write_tables([write_cell(tmp_path, each) for each in contents], tmp_path / "tables")
    shown = {Path(each.path).name: each for each in shown_tables(tmp_path)}
    assert set(shown) == {f"{name}.html" for name in (*written, "provenance", "health") if name != "cells"} | {"cells.csv"}
    assert shown["per_task_tiny_acc_norm.html"].labels == {
        "what": "accuracy of each task", "of": "tiny", "scored by": "log-likelihood normalised by length, acc_norm",
    }  # fmt: skip
    assert {each.category for each in shown.values()} == {"Tables", "Provenance", "Health"}


def test_an_experiment_that_was_finished_before_there_were_pages_shows_its_csv_files(tmp_path: Path) -> None:
    write_tables([write_cell(tmp_path, cell("pat", 0.25))], tmp_path / "tables")
    for page in (tmp_path / "tables").glob("*.html"):
        page.unlink()
    assert {Path(each.path).name for each in shown_tables(tmp_path)} >= {"table1.csv", "sizes.csv", "cells.csv"}


def test_nothing_is_shown_before_there_is_anything(tmp_path: Path) -> None:
    assert shown_tables(tmp_path) == []


def test_each_kind_has_its_caption() -> None:
    captions = {path.stem for path in (RULES / CAPTIONS).glob("*.rst")}
    assert captions == {*KINDS, *APART}
