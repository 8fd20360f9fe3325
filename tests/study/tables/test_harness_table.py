"""lm-eval's own tasks: a table of their own with means by hand, beside the number's origin, in the report and at a run's end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from study.report.page.cells import sections
from study.report.page.run import opened
from study.report.page.tables import shown_tables
from study.report.summary import show
from study.tables.metrics import Metrics
from study.tables.writing import write_tables
from tests.kit.cell_maker import cell, write_cell
from tests.kit.written_tables import rows_of, tables_of


def of_lm_eval(acc: float) -> dict[str, Any]:
    scores = {"acc,none": acc, "acc_stderr,none": 0.01, "exact_match,strict-match": 0.5}
    return {"harness": {"arc_easy": {"items": 2376, "version": 1.0, "scores": scores}}}


def test_what_lm_eval_gave_has_a_table(tmp_path: Path) -> None:
    contents = [
        cell("lora", 0.0, **of_lm_eval(0.6)),
        cell("pat"),
        *(cell(seed=seed, ratio=0.5, **of_lm_eval(0.2 + seed)) for seed in (0, 1)),
    ]
    contents[2]["harness"]["arc_easy"]["scores"]["acc,none"], contents[3]["harness"]["arc_easy"]["scores"]["acc,none"] = 0.25, 0.35
    out = tables_of(tmp_path, contents)
    text = (out / "harness.md").read_text()
    # one seed: 1.95996 standard errors; two: t(0.975, 1) = 12.7062 times 0.0707107 / √2
    assert rows_of(text)[-2:] == [
        ["tiny", "0 %", "LoRA", "", "0.6000 ± 0.0196", "0.5000"],
        ["tiny", "50 %", "PAT", "PAT", "0.3000 ± 0.6353", "0.5000 ± 0.0000"],
    ]
    assert "arc\\_easy, exact\\_match (strict-match)" in text and "Items: arc\\_easy 2,376." in text
    frame = pd.read_csv(out / "harness.csv")
    assert list(frame["arc_easy acc,none"]) == pytest.approx([0.6, 0.3])
    numbers = pd.read_csv(out / "cells.csv")
    assert len(numbers[(numbers["kind"] == "lm-eval") & (numbers["metric"] == "acc,none")]) == 3


def test_version_control_compares_it_too(tmp_path: Path) -> None:
    paths = [write_cell(tmp_path, cell(seed=seed, **of_lm_eval(0.2 + seed / 10))) for seed in (0, 1)]
    assert Metrics(paths).nested()["tiny"]["pat"]["25%"]["lm-eval"] == {"arc_easy": {"acc,none": 0.25, "exact_match,strict-match": 0.5}}


def test_without_any_there_is_no_table(tmp_path: Path) -> None:
    assert not (tables_of(tmp_path, [cell()]) / "harness.md").exists()


def test_the_page_and_the_summary_show_it_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of an experiment that is scored on nothing else."""
    alone = cell(**of_lm_eval(0.6)) | {"tasks": {}, "perplexity": {}}
    write_tables([write_cell(tmp_path, alone)], tmp_path / "tables")
    with opened(tmp_path) as run:
        assert [table.title for table in shown_tables(run) if table.name == "harness"] == ["Lm-eval's own tasks, as it scores them"]
        (section,) = sections(run)
    assert ("lm-eval's arc_easy", "acc,none 0.6000, acc_stderr,none 0.0100, exact_match,strict-match 0.5000") in section.perplexities
    show(tmp_path, Console(width=200))
    assert "0.6000 ± 0.0196" in capsys.readouterr().out
