"""Brings an experiment's results back from DVC so that Snakemake has nothing to do, and later reruns exactly what a change touches.

After a clone Snakemake has no record of how the files were made. Writing one is right only where files, code and settings are those that
were locked together; so each is checked first, and a doubt is a refusal with its reason. See docs/dvc.md, "Versioning with DVC".
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from pat.errors import UserError
from pat.io.yaml_files import read_yaml
from study.commands.errors import run_reporting_errors
from study.experiment.file import load_experiment
from study.plan.phases import PHASES
from study.versions.seals import RESTORING, check

LOCKED = ("Snakefile", "workflow", "pat", "config", "dvc.yaml", "dvc.lock")
LOCK = Path("dvc.lock")
DVC = (sys.executable, "-m", "dvc")


def restore(config: Path) -> str:
    """Fetch, check and record the results of every phase that dvc.lock holds for the experiment; return what was done.

    Raises UserError where code, settings or dvc.lock are not committed as they are, where the results are not those that were locked
    with them, or where a file is damaged.
    """
    results = Path("results", load_experiment(config, str(config)).name)
    _check_committed()
    phases = _locked_phases(config)
    stages = [f"{phase}@{config.stem}" for phase in phases]
    _pull(stages, results)
    _check_status(stages)
    check(results, [folder for phase in phases for folder in PHASES[phase].folders])
    targets = [target for phase in phases for target in PHASES[phase].targets]
    touched = _called(["tools/run", str(config), "--touch", "--forceall", "--cores", "1", *targets], {RESTORING: "1"})
    if touched.returncode != 0:
        raise UserError(f"Snakemake could not record the files:\n{(touched.stdout + touched.stderr).strip()}")
    return f"{results}: {', '.join(phases)} restored; every file is as dvc.lock and the seals say"


def _check_committed() -> None:
    changed = _called(["git", "status", "--porcelain", "--", *LOCKED])
    if changed.returncode != 0:
        raise UserError(f"git status: {changed.stderr.strip()}; results are restored in a clone of the repository alone")
    if changed.stdout:
        names = ", ".join(line[3:] for line in changed.stdout.splitlines())
        raise UserError(
            f"{names}: changed since the last commit, so what is locked may not be what would be run; commit or undo it, then restore"
        )


def _locked_phases(config: Path) -> list[str]:
    locked = (read_yaml(LOCK) if LOCK.is_file() else {}).get("stages", {})
    phases = [phase for phase in PHASES if f"{phase}@{config.stem}" in locked]
    if not phases:
        raise UserError(
            f"{LOCK}: holds no phase of {config}: nobody has run it with dvc repro and committed {LOCK}; "
            f"the experiment's file is config/<name>.yaml, and dvc.yaml names it under experiments"
        )
    return phases


def _pull(stages: Sequence[str], results: Path) -> None:
    """Fetch the stages' results. Raises UserError that names what could not be had; DVC itself names the stage's folder alone."""
    pulled = _called([*DVC, "pull", *stages])
    if pulled.returncode == 0:
        return
    status = _called([*DVC, "data", "status", "--granular", "--json"])
    lacking = json.loads(status.stdout).get("not_in_cache", []) if status.returncode == 0 else []
    files = [name for name in lacking if Path(name).is_relative_to(results)]
    hint = (
        f"\n{', '.join(files)}: missing or damaged in the remote. dvc push does not replace an object that is there: find its name with "
        f"dvc list . {results} -R --dvc-only --show-hash, remove it from the remote, and dvc push where the results are whole"
    )
    raise UserError(f"dvc pull {' '.join(stages)}: failed, nothing is restored:\n{pulled.stderr.strip()}{hint if files else ''}")


def _check_status(stages: Sequence[str]) -> None:
    status = _called([*DVC, "status", "--json", *stages])
    if status.returncode != 0:
        raise UserError(f"dvc status: {status.stderr.strip()}")
    if changed := json.loads(status.stdout):
        raise UserError(
            "code, settings or results differ from those locked together; run dvc repro, or go to the commit that locked them:\n"
            + "\n".join(f"  {stage}: {json.dumps(what)}" for stage, what in changed.items())
        )


def _called(command: Sequence[str], more: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env={**os.environ, **(more or {})}, capture_output=True, text=True, check=False)


def main(config: Annotated[Path, typer.Argument(help="Experiment file, config/<name>.yaml.")]) -> None:
    """Restore an experiment's results from the DVC remote."""
    run_reporting_errors(lambda: restore(config))
