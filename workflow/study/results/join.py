"""`study join`: folders of one experiment's results, made on several machines, brought into one, so that a run makes what is missing.

Files keep their times and Snakemake its records: without the former it would make them again, without the latter notice no change of
settings. Nothing that is there is replaced.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Annotated

import typer

from pat.errors import UserError
from pat.io.locks import acquire, owner
from pat.io.places import READS, WRITES, Place, check_apart
from pat.io.storage import writing
from study.commands.errors import run_reporting_errors
from study.results.choice import Join, check_together, same
from study.results.made import RECORDS, UNFINISHED, state_of
from study.results.units import Share

LOCK, RUNNING = "run.lock", "locks"
"""Where Snakemake has its records: what tools/run holds while it lives, and a folder of Snakemake's own."""


def check_places(folders: Sequence[Path], into: Path) -> None:
    """Raise UserError where a place is not results/<experiment> of a project's folder, or not of the same experiment as the others."""
    check_apart([Place("--into", into, WRITES), *(Place("folder", folder, READS) for folder in folders)])
    for folder in (into, *folders):
        if folder.absolute().parent.name != "results":
            raise UserError(f"{folder}: must be results/<experiment> in a folder where Snakemake has run, or is to run")
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder")
        if folder.absolute().name != into.absolute().name:
            raise UserError(f"{folder} and {into}: are of the experiments {folder.absolute().name!r} and {into.absolute().name!r}")


@contextmanager
def at_rest(results: Path) -> Iterator[None]:
    """Keep runs by tools/run from the folder of some results, in which Snakemake has a place for its records then.

    Raises UserError where a run is at work there, or has left its lock.
    """
    state = state_of(results)
    with writing(state):
        for folder in (RECORDS, UNFINISHED):
            (state / folder).mkdir(parents=True, exist_ok=True)
        lock = acquire(state / LOCK)
    if lock is None:
        raise UserError(f"{state.parent}: a run is at work there ({owner(state / LOCK)}); join when it has ended")
    try:
        if any((state / RUNNING).glob("*")):
            raise UserError(
                f"{state.parent}: a run is at work there, or was killed and has left its lock in {state / RUNNING}; let it end, or call "
                "tools/run config/<experiment>.yaml -n, which removes that of a dead one"
            )
        yield
    finally:
        lock.release(remove=False)


def bring(joined: Join) -> int:
    """Copy what is not there yet, and let every file that folders share have its earliest time; return how many files were copied."""
    copied = 0
    for unit, share in joined.taken.items():
        if share is joined.into:
            continue
        for made in share.units[unit]:
            if not (joined.into.folder / made.path).exists():
                theirs, ours = state_of(share.folder), state_of(joined.into.folder)
                _copy(theirs / RECORDS / made.record, ours / RECORDS / made.record)
                (ours / UNFINISHED / made.record).unlink(missing_ok=True)
        for file in (*share.notes(unit), *share.files(unit)):
            if not (joined.into.folder / file).exists():
                _copy(share.folder / file, joined.into.folder / file)
                copied += 1
    for unit, source in joined.taken.items():
        for share in joined.shares:
            if share is not source and unit in share.units and same(source, share, unit):
                _make_no_younger(joined.into.folder, share, unit)
    return copied


def _copy(source: Path, target: Path) -> None:
    """Copy a file with its time, under its name in one step."""
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        growing = target.with_name(f".{target.name}.joining.tmp")  # the same each time, so that nothing is left once it has been repeated
        shutil.copy2(source, growing)
        growing.replace(target)


def _make_no_younger(folder: Path, share: Share, unit: PurePath) -> None:
    """Give outputs that are here the times of the same ones elsewhere, where these are earlier: what was made from those is older."""
    for made in share.units[unit]:
        there = folder / made.path
        if there.exists() and share.folder.joinpath(made.path).stat().st_mtime_ns < there.stat().st_mtime_ns:
            found = share.folder.joinpath(made.path).stat()
            os.utime(there, ns=(found.st_atime_ns, found.st_mtime_ns))


def join(folders: Sequence[Path], into: Path) -> str:
    """Bring what folders have of an experiment into one, and return in lines what was taken from which.

    Nothing that is there is replaced, and a join that was interrupted can be repeated. Raises UserError before anything is copied where
    the folders do not belong together, where Snakemake's records lack, or a run is at work in the destination.
    """
    check_places(folders, into)
    shares = [Share(folder) for folder in folders]
    for share in shares:
        share.check_whole()
    with at_rest(into):
        there = Share(into)
        check_together([there, *shares])
        joined = Join(there, shares)
        files = bring(joined)
    return "\n".join([f"{into}: {files} files copied", *_told(joined)])


def _told(joined: Join) -> Iterator[str]:
    for share in (joined.into, *joined.shares):
        units = [unit for unit, source in joined.taken.items() if source is share]
        cells = len([unit for unit in units if is_cell(share, unit)])
        if units:
            beside = f", {len(units) - cells} of bases, sets of data and other parts" if len(units) > cells else ""
            yield f"  of {share.folder}: {'1 cell' if cells == 1 else f'{cells} cells'}{beside}"
    unlike = [f"{unit}: that of {ours.folder} is taken, {theirs.folder} has other bytes" for unit, ours, theirs in joined.unlike]
    parts = {"in several folders, with the same settings:": unlike, "left out, and made by the next run:": joined.left_out}
    for heading, lines in parts.items():
        if lines:
            yield heading
            yield from (f"  {line}" for line in lines)


def is_cell(share: Share, unit: PurePath) -> bool:
    """Return whether a unit is a finished cell."""
    return PurePath("evaluation", unit, "cell.json") in share.made


def main(
    folders: Annotated[list[Path], typer.Argument(help="results/<experiment> of each machine, with .snakemake beside its `results`.")],
    into: Annotated[Path, typer.Option(help="results/<experiment> where the run goes on; what is there stays.")],
) -> None:
    """Join parts of an experiment's results that were made on several machines."""
    run_reporting_errors(lambda: join(folders, into))
