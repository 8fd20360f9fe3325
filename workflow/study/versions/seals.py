"""Seals: how a run notices that version control has put other results in place of those that Snakemake knows.

Snakemake records in `.snakemake/` how each file was made, DVC keeps the files. `dvc checkout`, `dvc pull` or a copy of the workspace
(`dvc exp run --temp`) changes the one without the other; Snakemake would then take results of other settings for finished ones. So each
folder of results carries a seal, the checksums of what is in it, which travels with the folder, and `.snakemake/` keeps which seals were
set here. Written after a successful run; where a folder's seal was set elsewhere, workflow/study/versions/restore.py has to go first.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from pat.errors import UserError
from pat.io.artefacts import MANIFEST, check_folder, read_json, sha256, write_json, write_text
from pat.io.marks import SEAL
from study.commands.errors import run_reporting_errors
from study.experiment.file import load_experiment
from study.plan.phases import PHASES
from study.results.sealed import record_of, seal_of, short

RESTORING = "PAT_RESTORING"
"""Set by the restore, which alone may look at folders that are sealed elsewhere."""
UNFINISHED = ("run", "search", ".run")
"""Folders of jobs that are at work or were interrupted: no results, kept from DVC by .dvcignore."""


def seal(results: Path) -> None:
    """Seal the folders of every phase that has made something, so that DVC finds each of them. Equal contents give equal seals."""
    begun = [phase for phase in PHASES.values() if any((results / folder).is_dir() for folder in phase.folders)]
    texts = {folder: _sums(results, folder) for phase in begun for folder in phase.folders}
    # Killed between the writes, the old seals and the new ones are both known.
    _record(results, {folder: sorted({short(text), *filter(None, [seal_of(results / folder)])}) for folder, text in texts.items()})
    for folder, text in texts.items():
        if seal_of(results / folder) != short(text):
            write_text(results / folder / SEAL, text)
    _record(results, {folder: [short(text)] for folder, text in texts.items()})


def refusal(folders: list[Path]) -> str:
    """Return what the user reads of foreign folders."""
    return (
        f"{', '.join(map(str, folders))}: not the results that Snakemake's record in this folder (.snakemake/) is about; it would take "
        "them for finished, whatever their settings.\n"
        "After dvc pull, dvc checkout or dvc exp apply: commit, then make restore CONFIG=config/<experiment>.yaml, then change settings.\n"
        "In dvc exp run --temp or --queue there is no such record: call dvc exp run in the workspace, without them.\n"
        "Or remove the results, and they are made again."
    )


def check(results: Path, folders: list[str]) -> None:
    """Raise UserError, naming the file, unless each folder has its seal and all it lists, weights included, is there unchanged."""
    for folder in folders:
        if not (results / folder / SEAL).is_file():
            raise UserError(f"{results / folder}: has no {SEAL}: it was versioned before its phase had finished; run and push it again")
        for line in (results / folder / SEAL).read_text(encoding="utf-8").splitlines():
            expected, name = line.split("  ", 1)
            path = Path(os.path.normpath(results / folder / name))
            if not path.is_file() or sha256(path) != expected:
                raise UserError(f"{path}: is missing or differs from its checksum in {results / folder / SEAL} (truncated or changed)")
            if path.name == MANIFEST:
                check_folder(path.parent)


def _record(results: Path, known: dict[str, list[str]]) -> None:
    record = record_of(results)
    if not record.is_file() or read_json(record) != known:
        write_json(record, known)


def _sums(results: Path, folder: str) -> str:
    """Return a folder's seal; a phase's single files stand in that of its first folder."""
    single = [results / name for phase in PHASES.values() if phase.folders[0] == folder for name in phase.files]
    paths = [*_sealed_files(results / folder), *(path for path in single if path.is_file())]
    names = {Path(os.path.relpath(path, results / folder)).as_posix(): path for path in paths}
    return "".join(f"{sha256(names[name])}  {name}\n" for name in sorted(names))


def _sealed_files(folder: Path) -> Iterator[Path]:
    if (folder / MANIFEST).is_file():
        yield folder / MANIFEST
        return
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name == SEAL or path.name in UNFINISHED or (path.name.startswith(".") and path.name.endswith(".tmp")):
            continue
        if path.is_dir():
            yield from _sealed_files(path)
        else:
            yield path


def main(config: Annotated[Path, typer.Argument(help="Experiment file.")]) -> None:
    """Seal an experiment's results after a run."""

    def action() -> str:
        results = Path("results", load_experiment(config, str(config)).name)
        seal(results)
        return f"{results}: sealed"

    run_reporting_errors(action)
