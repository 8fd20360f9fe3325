"""A grid made in parts, on the finished smoke run: what a part makes, and that what it leaves is the whole's.

Parts of several machines are copies of the run, from which cells are removed.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml

from tests.kit.project import ROOT, planned, snakemake
from tests.kit.smoke_run import CONFIG, RESULTS

RAW = yaml.safe_load((ROOT / CONFIG).read_text())
FIRST = ("lora", "pat")
"""Rows that a part asks for."""
CELL = "channel-magnitude-ftp"
"""A row that hangs on another's model."""


def without(finished: Path, folder: Path, *rows: str) -> Path:
    """Return a copy of the run that lacks the cells of some rows, and tables and figures."""
    shutil.copytree(finished, folder, symlinks=True)
    for row in rows:
        for part in ("checkpoints", "evaluation"):
            shutil.rmtree(folder / RESULTS / part / "tiny" / row, ignore_errors=True)
    for laid_out in ("tables", "figures", "plots"):
        shutil.rmtree(folder / RESULTS / laid_out)
    (folder / RESULTS / "metrics.json").unlink()
    return folder


def test_a_part_makes_its_cells_and_what_they_are_made_from_and_lays_nothing_out(finished: Path, tmp_path: Path) -> None:
    folder = without(finished, tmp_path / "part", *FIRST, CELL, "dora")
    jobs = planned(folder, RAW | {"only": {"rows": ["pat", CELL], "ratios": [0.5], "seeds": [0]}})
    assert {job.split(" ")[0] for job in jobs} == {"tune", "merge", "prune", "evaluate", "collect"}
    assert {job for job in jobs if "lora" in job} == {"tune tiny by lora, ratio 0, seed 0", "merge tiny, lora, ratio 0, seed 0"}
    assert not [job for job in jobs if "dora" in job]


def test_the_cells_of_a_part_are_those_of_the_whole(finished: Path) -> None:
    """Settings and inputs are the same whichever part asked for a cell: of a finished run no part is to be made, nor the whole again."""
    for part in ("{rows: [lora, pat]}", "{ratios: [0.5], seeds: [0]}", "{models: [tiny], ratios: ['0']}"):
        plan = snakemake(finished, "--dry-run", "--configfile", CONFIG, "--config", f"only={part}")
        assert "Nothing to be done" in plan.stdout + plan.stderr, plan.stdout + plan.stderr
    assert planned(finished, RAW) == set()


def test_a_row_that_the_grid_does_not_have_is_one_message_before_any_job(finished: Path) -> None:
    plan = snakemake(finished, "--dry-run", "--configfile", CONFIG, "--config", "only={rows: [pta]}")
    assert plan.returncode == 1 and f"{CONFIG}: only.rows: \"pta\" is not a row of methods; did you mean 'pat'?" in plan.stderr
    assert "Traceback" not in plan.stderr


def test_what_config_says_on_the_command_line_is_of_its_kind(finished: Path) -> None:
    """Snakemake leaves the numbers of a list as text: `--config 'ratios=[0.25]'` was refused."""
    plan = snakemake(finished, "--dry-run", "--configfile", CONFIG, "--config", "ratios=[0.5]", "seeds=[0]", "tuning={max_steps: 12}")
    assert "Nothing to be done" in plan.stdout + plan.stderr, plan.stdout + plan.stderr
