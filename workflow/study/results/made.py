"""What an experiment's results are made of, as Snakemake has it on record: a file for each output below `.snakemake/metadata`.

The file is named by the output's path. A record holds the rule, the settings and the inputs that the output was made with: where it is
lost, a change of settings is not noticed any more. So it belongs to the results, and goes where they go.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

from pat.errors import UserError
from pat.io.artefacts import read_record

STATE = ".snakemake"
RECORDS, UNFINISHED = "metadata", "incomplete"
"""Below STATE: what was made, and what a job was making when it ended."""
PIECE = "@"
"""In front of the pieces of a name that is too long for one, but for the last."""


@dataclass(frozen=True)
class Made:
    """A finished output below an experiment's results: its record, below that folder, and what that says of it.

    `inputs` are below the results, `sources` the user's own files, as the run in its folder called them.
    """

    path: PurePath
    record: PurePath
    settings: tuple[str, ...]
    inputs: tuple[PurePath, ...]
    sources: tuple[PurePath, ...]
    logs: tuple[PurePath, ...]
    ended_s: float


def made_in(results: Path) -> list[Made]:
    """Return the finished outputs of an experiment in the order in which they were made.

    Raises UserError where Snakemake's records are not there, or one cannot be read.
    """
    state = state_of(results)
    return [made for made in _recorded(results) if (results / made.path).is_file() and not (state / UNFINISHED / made.record).exists()]


def gone_from(results: Path) -> list[Made]:
    """Return what has been made of an experiment and removed since, such as a model that was pruned to be tuned; as `made_in`."""
    return [made for made in _recorded(results) if not (results / made.path).exists()]


def _recorded(results: Path) -> list[Made]:
    state = state_of(results)
    if not (state / RECORDS).is_dir():
        raise UserError(
            f"{state / RECORDS}: no such folder, though it belongs to {results}: Snakemake's record of the settings that these files were "
            f"made with. Copy it along, with the times of the files: {results.parent.name}/{results.name} and {STATE} of one folder"
        )
    found = [
        _read(results, state / RECORDS / record, record, name)
        for record, name in _named(state / RECORDS)
        if name.is_relative_to(_below(results)) and name != _below(results)
    ]
    return sorted(found, key=lambda made: (made.ended_s, made.path))


def state_of(results: Path) -> Path:
    """Return where Snakemake has its records of results/<experiment>."""
    return results.absolute().parent.parent / STATE


def _below(results: Path) -> PurePath:
    """Return how paths begin that Snakemake has of these results."""
    return PurePath(results.absolute().parent.name, results.absolute().name)


def _named(records: Path) -> Iterator[tuple[PurePath, PurePath]]:
    """Yield each record below a folder with the output that its name stands for."""
    for path in records.rglob("*"):
        record = path.relative_to(records)
        if path.is_file():
            try:
                yield record, PurePath(urlsafe_b64decode("".join(part.removeprefix(PIECE) for part in record.parts)).decode())
            except ValueError:  # no record
                continue


def _read(results: Path, path: Path, record: PurePath, name: PurePath) -> Made:
    said, below = read_record(path), _below(results)
    try:
        inputs, logs = (
            tuple(PurePath(each).relative_to(below) for each in said[key] or () if PurePath(each).is_relative_to(below))
            for key in ("input", "log")
        )
        sources = tuple(PurePath(each) for each in said["input"] or () if not PurePath(each).is_relative_to(below))
        settings = tuple(map(str, said["params"] or ()))
        return Made(name.relative_to(below), record, settings, inputs, sources, logs, float(said["endtime"] or 0))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: is not what Snakemake has on record of {results} ({error!r}); this version reads that of Snakemake 9"
        ) from None
