"""The JSON records of a finished run in one compressed file, a line per record, from which each can be had back byte for byte.

A reference run keeps hundreds of records that few people open; one file of them is a fraction of their size.
"""

from __future__ import annotations

import io
import json
import lzma
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pat.errors import UserError
from pat.io.artefacts import check_content, check_free, json_text, parse_json, read_record, write_bytes
from pat.io.storage import refusal
from study.results.kept import place_of

ARCHIVE = "records.jsonl.xz"
"""What a kept run calls it. Xz is in Python's own library, and its output depends on nothing but the input."""


def pack(records: Mapping[str, Path], archive: Path) -> None:
    """Write the JSON objects of files into `archive`, each under its name, in the order of the names."""
    lines = [{"name": name, "record": read_record(path)} for name, path in sorted(records.items())]
    text = "".join(json.dumps(line, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n" for line in lines)
    write_bytes(archive, lzma.compress(text.encode()))


def packed(archive: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the records of an archive with their names. Raises UserError where it is not one."""
    try:
        text = lzma.decompress(archive.read_bytes()).decode()
    except OSError as error:
        raise refusal(error, archive) from None
    except (lzma.LZMAError, UnicodeDecodeError) as error:
        raise UserError(f"{archive}: is not an archive of records ({error}); fetch it again from where it came") from None
    for number, line in enumerate(
        io.StringIO(text), start=1
    ):  # whose lines end at \n alone, and a record may hold others of Unicode's ends
        entry = parse_json(line, f"{archive}, line {number}")
        if not (isinstance(entry, dict) and isinstance(entry.get("name"), str) and isinstance(entry.get("record"), dict)):
            raise UserError(f"{archive}, line {number}: holds no `name` with its `record`; fetch it again from where it came")
        if Path(entry["name"]).is_absolute() or ".." in Path(entry["name"]).parts:
            raise UserError(f"{archive}, line {number}: names {entry['name']!r}, which lies outside the run's folder")
        yield entry["name"], entry["record"]


def unpack(archive: Path, folder: Path, *, replace: bool = True) -> list[Path]:
    """Write every record into `folder` as `write_all` does; return the files."""
    files = unpacked(archive, folder)
    write_all(files, replace=replace)
    return list(files)


def unpacked(archive: Path, folder: Path) -> dict[Path, bytes]:
    """Return the records of an archive as their steps wrote them, by the files in `folder` where the results had them."""
    places = ((folder / place_of(name), record) for name, record in packed(archive))
    return {path: json_text(path, record).encode() for path, record in places}


def write_all(files: Mapping[Path, bytes], *, replace: bool) -> None:
    """Write files that belong together.

    One that is there with its content stays untouched: a new time would have Snakemake make again what follows from it.
    Without `replace` nothing is written where one is there with other content: records of two runs would stand for one.
    Nor is anything where a folder is in a file's place, or a file in that of its folder.
    """
    missing = {}
    for path, content in files.items():
        check_free(path)
        if not replace:
            check_content(path, content)
        if not (path.is_file() and path.read_bytes() == content):
            missing[path] = content
    for path, content in missing.items():
        write_bytes(path, content)
