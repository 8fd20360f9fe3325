"""Records out of the places that data come from: JSON files, plain or xz-compressed, and data sets of the hub.

A record keeps the place it stood at ("file:line"), which the messages about it name. What a record means is its reader's business.
"""

from __future__ import annotations

import io
import lzma
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pat.data.rows import text_field
from pat.errors import UserError
from pat.io.artefacts import parse_json, text_lines
from pat.io.storage import check_regular
from pat.settings.mistakes import shown
from study.sources.kinds import JSON_FORMATS, TABLE_FORMATS


@dataclass(frozen=True)
class Record:
    """One object of a source and where it stood."""

    place: str
    fields: Mapping[str, Any]

    def text(self, *names: str, default: str | None = None) -> str:
        """Return the first of these fields that is there. Raises UserError where none is, or where it is no text."""
        return text_field(self.place, self.fields, *names, default=default)


def json_records(path: Path) -> Iterator[Record]:
    """Yield the objects of a .json list or of a .jsonl file, either of them perhaps .xz. Raises UserError naming file and line."""
    if not path.name.endswith(JSON_FORMATS):
        raise UserError(f"{path}: must end in one of {', '.join(JSON_FORMATS)}")
    if ".jsonl" in path.name:
        yield from _line_records(path)
        return
    with opened(path) as stream:
        values = parse_json(stream.read(), str(path), unique_keys=True)
    if not isinstance(values, list):
        raise UserError(f"{path}: must hold a JSON list of objects, holds {shown(values)}")
    yield from (_record(f"{path}: record {number}", value) for number, value in enumerate(values, start=1))


def _line_records(path: Path) -> Iterator[Record]:
    with _bytes_of(path) as stream:
        yield from (line_record(path, number, line) for number, line in text_lines(path, stream))


def line_record(path: Path, number: int, line: str) -> Record:
    """Return the object of a line of a .jsonl file. Raises UserError naming file and line."""
    return _record(f"{path}:{number}", parse_json(line, f"{path}:{number}", unique_keys=True))


def _record(place: str, value: object) -> Record:
    if not isinstance(value, dict):
        raise UserError(f"{place}: must be a JSON object, is {shown(value)}")
    return Record(place, value)


@contextmanager
def opened(path: Path) -> Iterator[IO[str]]:
    """Yield the file as UTF-8 text, unpacked where it is .xz. Raises UserError where it cannot be read."""
    with _bytes_of(path) as stream:
        yield io.TextIOWrapper(stream, encoding="utf-8")


@contextmanager
def _bytes_of(path: Path) -> Iterator[IO[bytes]]:
    check_regular(path)
    try:
        with lzma.open(path) if path.suffix == ".xz" else path.open("rb") as stream:
            yield stream
    except (OSError, lzma.LZMAError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None


def hub_records(dataset: str, config: str | None, split: str, revision: str | None) -> Iterator[Record]:
    """Yield the rows of a data set of the hub, from the local cache where it is there.

    Raises UserError where it can be had neither from the cache nor from the network.
    """
    from datasets import load_dataset

    try:
        rows = load_dataset(dataset, config, split=split, revision=revision)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"hub data set {dataset!r} (config {config}, split {split}, revision {revision or 'main'}) cannot be loaded: {error}; "
            "prepare the data where there is a network, or give a local file as `path`"
        ) from None
    yield from (Record(f"{dataset}/{split} row {number}", row) for number, row in enumerate(rows))


def file_records(path: Path) -> Iterator[Record]:
    """Yield the rows of a local copy of a hub data set: parquet or CSV as the hub stores it, or JSON."""
    if path.suffix not in TABLE_FORMATS:
        yield from json_records(path)
        return
    from datasets import load_dataset

    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        # Streamed, a large file is not copied into the library's cache under the user's home before its first row is seen.
        rows = load_dataset(TABLE_FORMATS[path.suffix], data_files=str(path), split="train", streaming=True)
        yield from (Record(f"{path} row {number}", row) for number, row in enumerate(rows))
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{path}: cannot be read as {TABLE_FORMATS[path.suffix]} ({error})") from None
