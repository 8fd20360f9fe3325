"""What `study progress` lays out of the finished cells, before there are tables of all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from study.experiment.file import load_experiment
from study.report import progress
from study.report.page.run import Run
from study.report.page.tables import shown_tables
from tests.kit.cell_maker import answered, cell, write_cell
from tests.kit.experiments import changed


def test_the_report_has_the_tables_that_the_experiment_asks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They were read off the finished tables, which are not there yet."""
    monkeypatch.chdir(tmp_path)
    runs: list[Run] = []

    def keep(run: Run, called: str) -> str:
        runs.append(run)
        return called

    monkeypatch.setattr(progress, "page", keep)
    raw = changed("tables", value={"reference": "pat-g", "accuracy": "table3", "ablations": {"parts": ["mask"]}})
    factors = {"pat": {"mask": True}, "pat-g": {"mask": False}, "pat-dora": {}}
    for row, its in factors.items():
        raw["methods"][row] = {**(raw["methods"][row] or {}), "factors": its}
    experiment = load_experiment(raw, "x.yaml")
    right = answered({"sums": {"acc": "1" * 60 + "0" * 40}})
    made = [cell(row, 0.5, tasks=right, factors=its) for row, its in factors.items()]
    paths = [write_cell(Path("results/smoke"), content) for content in made]
    assert len(list(progress.lay_out(experiment, paths, Path("so far"), Path("page.html"), force=False))) == 2
    shown = {each.name: each.layout for each in shown_tables(runs[0])}
    assert set(shown) == {path.stem for path in Path("so far").glob("*.md")} >= {"table3", "ablation_parts"}
    compared = shown["comparisons"].header.index("compared with")
    assert {row[compared] for row in shown["comparisons"].rows} == {"PAT-G at 50 %"}
