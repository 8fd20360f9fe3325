"""Records out of the places that data come from: JSON files, plain or xz-compressed, and data sets of the hub.

A record keeps the place it stood at ("file:line"), which the messages about it name. What a record means is its reader's business.
"""

from __future__ import annotations

import json
import lzma
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from pat.artefacts import parse_json
from pat.errors import UserError
from pat.rows import text_field
from pat.settings import Settings, load, shown
from pat.sources import JSON_FORMATS, TABLE_FORMATS
from pat.storage import check_regular

KindT = TypeVar("KindT", bound=Settings)


@dataclass(frozen=True)
class Record:
    """One object of a source and where it stood."""

    place: str
    fields: Mapping[str, Any]

    def text(self, *names: str, default: str | None = None) -> str:
        """Return the first of these fields that is there. Raises UserError where none is, or where it is no text."""
        return text_field(self.place, self.fields, *names, default=default)


def parse_source(text: str, kinds: Mapping[str, type[Settings]]) -> Settings:
    """Return the checked source block. Raises UserError where its kind is not among `kinds` or a field is wrong."""
    block = parse_json(text, "--source")
    kind = block.get("source") if isinstance(block, dict) else None
    if not isinstance(kind, str) or kind not in kinds:
        raise UserError(f"--source: source is {shown(kind)}; allowed: {', '.join(sorted(kinds))}")
    return load(kinds[kind], json.dumps(block))


def json_records(path: Path) -> Iterator[Record]:
    """Yield the objects of a .json list or of a .jsonl file, either of them perhaps .xz. Raises UserError naming file and line."""
    if not path.name.endswith(JSON_FORMATS):
        raise UserError(f"{path}: must end in one of {', '.join(JSON_FORMATS)}")
    with opened(path) as stream:
        if ".jsonl" in path.name:
            yield from _line_records(path, stream)
            return
        values = parse_json(stream.read(), str(path))
    if not isinstance(values, list):
        raise UserError(f"{path}: must hold a JSON list of objects, holds {shown(values)}")
    yield from (_record(f"{path}: record {number}", value) for number, value in enumerate(values, start=1))


def _line_records(path: Path, stream: IO[str]) -> Iterator[Record]:
    for number, line in enumerate(stream, start=1):
        if line.strip():
            yield _record(f"{path}:{number}", parse_json(line, f"{path}:{number}"))


def _record(place: str, value: object) -> Record:
    if not isinstance(value, dict):
        raise UserError(f"{place}: must be a JSON object, is {shown(value)}")
    return Record(place, value)


@contextmanager
def opened(path: Path) -> Iterator[IO[str]]:
    """Yield the file as UTF-8 text, unpacked where it is .xz. Raises UserError where it cannot be read."""
    check_regular(path)
    try:
        with lzma.open(path, "rt", encoding="utf-8") if path.suffix == ".xz" else path.open(encoding="utf-8") as stream:
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
    with tempfile.TemporaryDirectory() as cache:  # the library would otherwise keep a copy under the user's home
        try:
            rows = load_dataset(TABLE_FORMATS[path.suffix], data_files=str(path), split="train", cache_dir=cache)
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(f"{path}: cannot be read as {TABLE_FORMATS[path.suffix]} ({error})") from None
        yield from (Record(f"{path} row {number}", row) for number, row in enumerate(rows))
