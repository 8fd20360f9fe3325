"""`study name`: what an experiment's file calls it, which is its folder below `results/`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pat.errors import UserError
from pat.settings.mistakes import shown
from study.commands.errors import run_reporting_errors
from study.experiment.extends import read_resolved


def name_of(config: Path) -> str:
    """Return the name in an experiment's file, or in one that it extends. Raises UserError where it is none that a folder can have."""
    name = read_resolved(config).get("name")
    if not isinstance(name, str) or Path(name).name != name:
        raise UserError(f"{config}: name: {shown(name)} is not allowed: must be text that a folder can be called")
    return name


def main(config: Annotated[Path, typer.Argument(help="experiment file")]) -> None:
    """Print the name of an experiment, which is its folder below `results/`."""
    run_reporting_errors(lambda: name_of(config))
