"""Records out of files as people have them: JSON, JSONL, CSV, Parquet or plain text, each perhaps compressed, and folders that `datasets`
has saved. A record keeps the place it stood at ("file:line", "file: row 3"), which the messages about it name.

What a record means is its reader's business (rows.py). Parquet, .zst and saved folders need pyarrow and datasets (the extra `evaluation`).
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pat.errors import UserError
from pat.io.artefacts import parse_json, text_lines
from pat.io.storage import check_regular, refusal
from pat.machine.extras import need
from pat.settings.mistakes import shown

KINDS = (".jsonl", ".json", ".csv", ".parquet", ".txt")
PACKINGS = (".gz", ".xz", ".bz2", ".zst")
JSON_FORMATS = tuple(kind + packing for kind in (".json", ".jsonl") for packing in ("", *PACKINGS))
ALLOWED = f"{', '.join(KINDS[:-1])} or {KINDS[-1]}, each perhaps compressed ({', '.join(PACKINGS)})"
LARGEST_FIELD = 2**31 - 1
"""Of a CSV, in characters: csv's own bound of 131,072 is less than a long conversation."""


@dataclass(frozen=True)
class Record:
    """One object of a source and where it stood."""

    place: str
    fields: Mapping[str, Any]

    def text(self, *names: str, default: str | None = None) -> str:
        """Return the first of these fields that is there. Raises UserError where none is, or where it is no text."""
        return text_field(self.place, self.fields, *names, default=default)


def text_field(place: str, fields: Mapping[str, Any], *names: str, default: str | None = None) -> str:
    """Return the first of these fields that is there and not null. Raises UserError where none is, or where it is no text."""
    for name in names:
        value = fields.get(name)
        if value is not None:
            if not isinstance(value, str):
                raise UserError(f"{place}: {name} is {shown(value)}; must be a text")
            return value
    if default is not None:
        return default
    if empty := [name for name in names if name in fields]:
        raise UserError(f"{place}: {empty[0]} is null; must be a text")
    raise UserError(f"{place}: lacks the field {' or '.join(names)}; it has {', '.join(sorted(map(str, fields))) or 'none'}")


def records(path: Path) -> Iterator[Record]:
    """Yield the records of a file, or of a folder saved by `datasets`; of plain text, a record with `text` each line that is not blank.

    Raises UserError naming file and row where it cannot be read, or is not what its ending says.
    """
    if path.is_dir():
        yield from _saved_records(path)
        return
    yield from READERS[kind_of(path)](path)


def kind_of(path: Path) -> str:
    """Return a file's kind by its ending, without that of its compression. Raises UserError where it is none of those that are read."""
    name = path.name.removesuffix(packing_of(path))
    kind = next((kind for kind in KINDS if name.endswith(kind)), None)
    if kind is None:
        raise UserError(f"{path}: must end in {ALLOWED}, or be a folder that `save_to_disk` of datasets wrote")
    return kind


def packing_of(path: Path) -> str:
    """Return the ending of a file's compression, "" where it has none."""
    return path.suffix if path.suffix in PACKINGS else ""


def name_of(path: Path) -> str:
    """Return what the rows of a file are called: as the file, without its endings."""
    return Path(path.name.removesuffix(packing_of(path))).stem


def _line_records(path: Path) -> Iterator[Record]:
    with bytes_of(path) as stream:
        yield from (line_record(path, number, line) for number, line in text_lines(path, stream))


def line_record(path: Path, number: int, line: str) -> Record:
    """Return the object of a line of a .jsonl file. Raises UserError naming file and line."""
    return _record(f"{path}:{number}", parse_json(line, f"{path}:{number}", unique_keys=True))


def _record(place: str, value: object) -> Record:
    if not isinstance(value, dict):
        raise UserError(f"{place}: must be a JSON object, is {shown(value)}")
    return Record(place, value)


def _list_records(path: Path) -> Iterator[Record]:
    """Yield the objects of a JSON list, or of lines: many a .json holds an object a line."""
    with opened(path) as stream:
        text = stream.read()
    if _begins_with_an_object(text):
        yield from (line_record(path, number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip())
        return
    values = parse_json(text, str(path), unique_keys=True)
    if not isinstance(values, list):
        raise UserError(f"{path}: must hold a JSON list of objects, holds {shown(values)}")
    yield from (_record(f"{path}: record {number}", value) for number, value in enumerate(values, start=1))


def _begins_with_an_object(text: str) -> bool:
    """Return whether the first line is an object of its own, and not all there is."""
    first, _, rest = text.lstrip().partition("\n")
    return first.startswith("{") and first.rstrip().endswith("}") and bool(rest.strip())


def _csv_records(path: Path) -> Iterator[Record]:
    csv.field_size_limit(LARGEST_FIELD)
    with opened(path, newline="") as stream:
        reader, number = csv.DictReader(stream, strict=True), 0
        try:
            names = reader.fieldnames or []
            _check_distinct(names, f"{path}: the first line names")
            for number, fields in enumerate(reader, start=1):
                if None in fields or None in fields.values():
                    raise UserError(f"{path}: row {number}: has {'more' if None in fields else 'fewer'} columns than the first line names")
                yield Record(f"{path}: row {number}", fields)
        except csv.Error as error:
            raise UserError(f"{path}: row {number + 1}: is not valid CSV ({error})") from None


def _check_distinct(names: Sequence[str], opening: str) -> None:
    """Raise UserError where two columns have one name; `opening` says who names them."""
    if twice := next((name for place, name in enumerate(names) if name in names[:place]), None):
        raise UserError(f"{opening} the column {twice!r} twice; one of them would be lost")


def _parquet_records(path: Path) -> Iterator[Record]:
    need("evaluation", f"{path}: reading Parquet")
    from pyarrow import ArrowException, parquet

    with bytes_of(path) as stream:
        content = io.BytesIO(stream.read()) if packing_of(path) else stream
        try:
            file = parquet.ParquetFile(content)
            _check_distinct(file.schema_arrow.names, f"{path}: names")
            rows = (row for batch in file.iter_batches() for row in batch.to_pylist())
            yield from (Record(f"{path}: row {number}", row) for number, row in enumerate(rows, start=1))
        except (ArrowException, OSError) as error:
            raise UserError(f"{path}: cannot be read as Parquet ({error})") from None


def _plain_records(path: Path) -> Iterator[Record]:
    with bytes_of(path) as stream:
        yield from (Record(f"{path}:{number}", {"text": line.rstrip("\r\n")}) for number, line in text_lines(path, stream))


def _saved_records(folder: Path) -> Iterator[Record]:
    """Yield the rows of a folder that `save_to_disk` wrote; of several splits the only one, or that called train."""
    if not any((folder / name).is_file() for name in ("dataset_info.json", "dataset_dict.json")):
        raise UserError(f"{folder}: is a folder, but none that `save_to_disk` of datasets wrote; give a file, or such a folder")
    need("evaluation", f"{folder}: reading a saved data set")
    from datasets import DatasetDict, load_from_disk

    try:
        found = load_from_disk(str(folder))
    except (OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError) as error:  # its records may hold anything
        raise UserError(f"{folder}: cannot be read as a saved data set ({type(error).__name__}: {error})") from None
    if isinstance(found, DatasetDict):
        name = next(iter(found)) if len(found) == 1 else "train"
        if name not in found:
            raise UserError(f"{folder}: holds the splits {', '.join(found)}; name one of them, such as {folder / next(iter(found))}")
        found = found[name]
    yield from (Record(f"{folder}: row {number}", row) for number, row in enumerate(found, start=1))


READERS: dict[str, Callable[[Path], Iterator[Record]]] = {
    ".jsonl": _line_records,
    ".json": _list_records,
    ".csv": _csv_records,
    ".parquet": _parquet_records,
    ".txt": _plain_records,
}


@contextmanager
def opened(path: Path, newline: str | None = None) -> Iterator[IO[str]]:
    """Yield a file as UTF-8 text, a byte-order mark left out, unpacked where it is compressed; `newline` as for `open`.

    Raises UserError where it cannot be read.
    """
    with bytes_of(path) as stream:
        yield io.TextIOWrapper(stream, encoding="utf-8-sig", newline=newline)


@contextmanager
def bytes_of(path: Path) -> Iterator[IO[bytes]]:
    """Yield a file's bytes, unpacked where it is compressed. Raises UserError where it cannot be read."""
    check_regular(path)
    try:
        with _unpacked(path) as stream:
            yield stream
    except (lzma.LZMAError, zlib.error, EOFError, UnicodeDecodeError, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    except OSError as error:
        if error.errno is not None:
            raise refusal(error, path) from None
        raise UserError(f"{path}: cannot be read ({error})") from None


def _unpacked(path: Path) -> IO[bytes]:
    packing = packing_of(path)
    if packing == ".zst":
        need("evaluation", f"{path}: reading .zst")
        import pyarrow

        return io.BufferedReader(pyarrow.input_stream(str(path), compression="zstd"))
    openers: dict[str, Any] = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open, "": Path.open}
    stream: IO[bytes] = openers[packing](path, "rb")
    return stream
