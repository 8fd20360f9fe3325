"""`study validate`: an experiment file checked, with the models and data that it names on this disk, and its cells listed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pat.errors import UserError
from study.commands.errors import errors_reported
from study.experiment.budgets import solved_budgets
from study.experiment.calibration import instructions_alone
from study.experiment.checks.disk import disk_problems
from study.experiment.file import load_experiment
from study.experiment.refits import too_little_memory
from study.experiment.runtimes import formats_ruled_out
from study.experiment.shortfall import shortfalls


def validate(config: Path) -> tuple[list[str], list[str]]:
    """Return the paths of an experiment's cells, and warnings and notes. Raises UserError that lists every problem, one per line."""
    experiment = load_experiment(config, str(config))
    if found := disk_problems(experiment):
        raise UserError("\n".join(f"{config}: {problem}" for problem in found))
    told = [f"{config}: {sentence}" for sentence in solved_budgets(experiment)]
    told += [f"{config}: warning: {sentence}" for sentence in (*shortfalls(experiment), *too_little_memory(experiment))]
    told += [f"{config}: note: {sentence}" for sentence in (*instructions_alone(experiment), *formats_ruled_out(experiment))]
    return [str(cell.path) for cell in experiment.cells()], told


def main(config: Annotated[Path, typer.Argument(help="experiment file")]) -> None:
    """Check an experiment file, and the models and data that it names on this disk, and list its cells."""
    with errors_reported():
        cells, warnings = validate(config)
    for cell in cells:
        typer.echo(cell)
    for warning in warnings:
        typer.echo(warning, err=True)
    counted = "1 cell" if len(cells) == 1 else f"{len(cells)} cells"
    typer.echo(f"{config}: valid, {counted}", err=True)
