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
from study.results.kept import RESULT
from study.results.made import RECORDS, UNFINISHED, state_of
from study.results.sealed import foreign
from study.results.units import Share

LOCK, RUNNING = "run.lock", "locks"
"""Where Snakemake has its records: what tools/run holds while it lives, and a folder of Snakemake's own."""

COMPARED_BYTES = 1_000_000
"""Up to this size Snakemake takes a younger file with the same content for unchanged."""


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


def check_on_record(folders: Sequence[Path]) -> None:
    """Raise UserError where version control, or a copy, has put other results in place of those that Snakemake has on record."""
    for folder in folders:
        if replaced := foreign(folder):
            raise UserError(
                f"{', '.join(map(str, replaced))}: not the results that Snakemake's records in {state_of(folder)} are about, as after dvc "
                "pull or a copy over another run; copy results and .snakemake of one folder, or call make restore there; nothing is joined"
            )


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
    """Copy what is not there yet, and let every file that folders share have its earliest time; return how many files were copied.

    Each unit comes with its times behind what it was made from, so that an end at any moment leaves nothing that seems out of date.
    """
    copied = 0
    for unit, share in joined.taken.items():
        if share is not joined.into:
            _record(share, joined.into, unit)
            for file in (*share.notes(unit), *share.files(unit)):
                if not (joined.into.folder / file).exists():
                    _copy(share.folder / file, joined.into.folder / file)
                    copied += 1
        for other in joined.shares:
            if unit in other.units and same(share, other, unit):
                _make_no_younger(joined.into.folder, other, unit)
    return copied


def _record(share: Share, into: Share, unit: PurePath) -> None:
    """Copy Snakemake's records of what is taken of a unit. What lies there without one is the same, or it would not be taken."""
    theirs, ours = state_of(share.folder), state_of(into.folder)
    for made in share.chain(unit):
        if made.path not in into.made:
            _copy(theirs / RECORDS / made.record, ours / RECORDS / made.record)
            (ours / UNFINISHED / made.record).unlink(missing_ok=True)


def _copy(source: Path, target: Path) -> None:
    """Copy a file with its time, under its name in one step."""
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        growing = target.with_name(".joining.tmp")  # the same each time, so that nothing is left once it has been repeated, and short
        shutil.copy2(source, growing)
        growing.replace(target)


def _make_no_younger(folder: Path, share: Share, unit: PurePath) -> None:
    """Give outputs that are here the times of the same ones elsewhere, where these are earlier: what was made from those is older.

    None becomes older than what is here of its inputs.
    """
    for made in share.units[unit]:
        there, found = folder / made.path, (share.folder / made.path).stat()
        if there.exists() and found.st_mtime_ns < there.stat().st_mtime_ns:
            inputs = (folder / path for path in made.inputs)
            if all(path.stat().st_mtime_ns <= found.st_mtime_ns for path in inputs if path.exists()):
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
    check_on_record([into, *folders])
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
    parts = {
        "in several folders, with the same settings:": unlike,
        "left out, and made by the next run:": joined.left_out,
        "younger than what was made from them elsewhere, so that the next run makes it and its cells again (where they are the same, "
        "give them the time of the original, by touch -r or rsync -t):": _younger_sources(joined),
    }
    for heading, lines in parts.items():
        if lines:
            yield heading
            yield from (f"  {line}" for line in lines)


def _younger_sources(joined: Join) -> list[str]:
    """Return the user's own files that are younger here than what was made from them; small ones Snakemake compares by content."""
    home, into = state_of(joined.into.folder).parent, joined.into.folder
    made = (it for unit, share in joined.taken.items() for it in share.units[unit])
    pairs = ((home / source, into / it.path) for it in made for source in it.sources)
    return list(dict.fromkeys(str(source) for source, output in pairs if source.is_file() and _is_younger(source.stat(), output.stat())))


def _is_younger(source: os.stat_result, output: os.stat_result) -> bool:
    return source.st_size > COMPARED_BYTES and source.st_mtime_ns > output.st_mtime_ns


def is_cell(share: Share, unit: PurePath) -> bool:
    """Return whether a unit is a finished cell."""
    return PurePath("evaluation", unit, RESULT) in share.made


def main(
    folders: Annotated[list[Path], typer.Argument(help="results/<experiment> of each machine, with .snakemake beside its `results`.")],
    into: Annotated[Path, typer.Option(help="results/<experiment> where the run goes on; what is there stays.")],
) -> None:
    """Join parts of an experiment's results that were made on several machines."""
    run_reporting_errors(lambda: join(folders, into))
