"""Files that pass between phases: written atomically, read with checks. Knows nothing of what is inside them.

A folder counts as finished when it holds `manifest.json`, the list of its files with sizes and SHA-256 sums, and it appears under
its final name in one step. A killed job therefore leaves either the old state or the new one. What is replaced bears the mark of the
same verb (marks.py).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from pat.errors import UserError
from pat.io import marks
from pat.io.exchange import put_in_place
from pat.io.marks import Folder, check_replaceable, special
from pat.io.storage import check_regular, refusal, writing
from pat.io.temporaries import file_for, names_for

MANIFEST = marks.MANIFEST
MAKE_AGAIN = "; make or fetch it again; what a run has made is made again once it is deleted"
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")
"""How a surrogate is spelt in JSON, or stands in an argument that is not UTF-8."""
HASHED_AT_ONCE = 8
"""Files whose checksums are formed side by side; a model is written in about as many shards."""
READ_AND_WRITE = 0o666
"""Of a file's mode."""
ANY_FOLDER = Folder("pat")
"""A finished folder of no particular verb."""


def write_text(path: Path, text: str, *, replace: bool = True) -> None:
    """Write `text` under `path` in one rename, making the parent folders.

    Raises UserError where the disk refuses, a pipe is there, or, without `replace`, a file with other content.
    """
    write_bytes(path, text.encode(), replace=replace)


def write_bytes(path: Path, content: bytes, *, replace: bool = True) -> None:
    """As write_text, for bytes."""
    if problem := special(path):
        raise UserError(f"{path}: {problem}")
    if not replace:
        check_content(path, content)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with file_for(path) as temporary:
            with temporary.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)


def write_json(path: Path, value: object, *, replace: bool = True) -> None:
    """Write `value` as JSON with sorted keys, so that equal values give equal bytes; otherwise as write_text.

    Raises UserError on a number that is none.
    """
    write_text(path, json_text(path, value), replace=replace)


def json_text(path: Path, value: object) -> str:
    """Return what `write_json` writes. Raises UserError, naming the file that it is for, on a number that is none."""
    if (place := _not_finite("", value)) is not None:
        raise UserError(
            f"{path}: not written: {place or 'the value'} is not a finite number; "
            "the weights or settings that it comes from are beyond a float's range"
        )
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _not_finite(place: str, value: object) -> str | None:
    """Return where in a value a NaN or an infinity is, as keys joined by dots; None where there is none."""
    if isinstance(value, float):
        return None if math.isfinite(value) else place
    if not isinstance(value, dict | list | tuple):
        return None
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    below = (_not_finite(f"{place}.{key}" if place else str(key), entry) for key, entry in entries)
    return next((found for found in below if found is not None), None)


def read_text(path: Path, advice: str = "") -> str:
    """Return a file's text. Raises UserError where it cannot be read, or is not UTF-8, which ends in the `advice`."""
    check_regular(path)
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise refusal(error, path) from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text ({error}){advice}") from None


def read_json(path: Path) -> Any:
    """Return the parsed file. Raises UserError where it cannot be read or is not JSON."""
    return parse_json(read_text(path, MAKE_AGAIN), str(path), MAKE_AGAIN)


def read_record(path: Path) -> dict[str, Any]:
    """As read_json, for a file that must hold an object."""
    record = read_json(path)
    if not isinstance(record, dict):
        raise UserError(f"{path}: must be a JSON object, is {type(record).__name__}{MAKE_AGAIN}")
    return record


def parse_json(text: str, place: str, advice: str = "", *, unique_keys: bool = False) -> Any:
    """Return the parsed text. Raises UserError that names its `place` where it is not JSON, or JSON beyond reading: depth, digits, halves
    of surrogate pairs; with `unique_keys` also where an object gives a key twice, of which the last would count.
    """
    try:
        value = json.loads(text, object_pairs_hook=_once_each if unique_keys else None)
    except ValueError as error:
        raise UserError(f"{place}: is not valid JSON ({error}){advice}") from None
    except RecursionError:
        raise UserError(f"{place}: is not valid JSON (nested too deeply){advice}") from None
    if SURROGATE.search(text) and not is_utf8(json.dumps(value, ensure_ascii=False)):
        raise UserError(f"{place}: holds half of a surrogate pair (\\ud800 to \\udfff), which is no text{advice}")
    return value


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the pairs as an object. Raises ValueError that names a key that is there twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands twice in one object")
    return found


def is_utf8(text: str) -> bool:
    """Return whether a text can be written: halves of surrogate pairs, which JSON and YAML can spell, cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_content(path: Path, content: bytes) -> None:
    """Raise UserError where a file is there that holds something else."""
    if path.is_file() and path.read_bytes() not in (b"", content):
        raise UserError(f"{path}: is there already, with other content; name another place, or give --force to replace it")


def check_free(path: Path) -> None:
    """Raise UserError where no file can be written: a folder or a pipe is there, or a file where one of its folders would be."""
    if problem := special(path):
        raise UserError(f"{path}: {problem}")
    if path.is_dir():
        raise UserError(f"{path}: is a folder, where a file is needed; move it away, or name another place")
    there = next((each for each in path.parents if os.path.lexists(each)), None)
    if there is not None and not there.is_dir():
        raise UserError(f"{there}: is a file, where a folder is needed; move it away, or name another place")


def json_lines(rows: Iterable[Mapping[str, object]]) -> list[str]:
    """Return rows as JSON objects, one per line."""
    return [json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows]


def write_jsonl(path: Path, rows: Iterable[Mapping[str, object]], *, replace: bool = True) -> int:
    """Write one JSON object per line, otherwise as write_text; returns how many."""
    lines = json_lines(rows)
    write_text(path, "".join(lines), replace=replace)
    return len(lines)


def read_jsonl(path: Path, required: Sequence[str]) -> list[dict[str, Any]]:
    """Return the file's objects, each holding the `required` fields. Raises UserError naming file and line."""
    return [row for _, row in numbered_rows(path, required)]


def numbered_rows(path: Path, required: Sequence[str] = ()) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number of each line that is not blank with its object, as read_jsonl. Raises UserError where there are none."""
    check_regular(path)
    found = 0
    try:
        with path.open("rb") as stream:
            for number, line in text_lines(path, stream):
                found += 1
                yield number, _parsed_line(path, number, line, required)
    except OSError as error:
        raise refusal(error, path) from None
    if not found:
        raise UserError(f"{path}: holds no rows")


def text_lines(path: Path, stream: IO[bytes]) -> Iterator[tuple[int, str]]:
    """Yield number and text of each line of a file that is not blank, a byte-order mark left out.

    Raises UserError naming file and line where it is not UTF-8.
    """
    for number, line in enumerate(stream, start=1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{path}:{number}: is not UTF-8 text ({error})") from None
        if text.strip():
            yield number, text


def _parsed_line(path: Path, number: int, line: str, required: Sequence[str]) -> dict[str, Any]:
    row = parse_json(line, f"{path}:{number}", unique_keys=True)
    if not isinstance(row, dict):
        raise UserError(f"{path}:{number}: must be a JSON object, is {type(row).__name__}")
    missing = [field for field in required if field not in row]
    if missing:
        raise UserError(f"{path}:{number}: lacks the field(s) {', '.join(missing)}; it has {', '.join(sorted(row)) or 'none'}")
    return row


@contextmanager
def new_folder(out: Path, kind: Folder = ANY_FOLDER, *, force: bool = False) -> Iterator[Path]:
    """Yield an empty sibling of `out`; on success add its manifest and put it in `out`'s place, on failure remove it.

    Raises UserError where the disk refuses, whichever library was writing, and, now and at the end, where something is in the way that
    is not of this kind, unless with `force`.
    """
    check_replaceable(out, kind, force=force)
    with writing(out), names_for(out) as names:
        names.new.mkdir()
        yield names.new
        _open_as_the_folder(names.new)
        seal(names.new, kind)
        check_replaceable(out, kind, force=force)
        put_in_place(names.new, out, names.aside)


def _open_as_the_folder(folder: Path) -> None:
    """Let whoever may read a folder, or write in it, do so with its files: safetensors leaves its own to their owner alone."""
    granted = folder.stat().st_mode & READ_AND_WRITE
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(path.stat().st_mode | granted)


def seal(folder: Path, kind: Folder = ANY_FOLDER) -> None:
    """Write a folder's manifest, by which it counts as finished. Raises RuntimeError where there is nothing in it."""
    listed = manifest(folder)
    if not listed["files"]:
        raise RuntimeError(f"{folder}: is to be sealed as finished, but holds no file")
    write_json(folder / MANIFEST, listed if kind is ANY_FOLDER else listed | {"made_by": kind.maker})


def manifest(folder: Path) -> dict[str, object]:
    """Return sizes and SHA-256 sums of all files below `folder`, the manifest itself left out."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    named = zip(paths, _sums(paths), strict=True)
    return {"files": {path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": found} for path, found in named}}


def _sums(paths: Iterable[Path]) -> list[str]:
    """Return the files' SHA-256 sums, several files at a time: a model's shards take longer than anything else that reads them."""
    with ThreadPoolExecutor(HASHED_AT_ONCE) as pool:
        return list(pool.map(sha256, paths))


def sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 sum of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_folder(folder: Path) -> None:
    """Raise UserError unless `folder` holds a manifest and every file in it is there unchanged."""
    if not folder.is_dir():
        raise UserError(f"{folder}: is a file, where a folder is needed" if folder.exists() else f"{folder}: no such folder")
    if not (folder / MANIFEST).exists():
        raise UserError(f"{folder}: has no {MANIFEST}: the step that makes this folder did not finish; run it again")
    listed = {folder / name: expected for name, expected in listed_files(folder).items()}
    if not listed:
        raise UserError(f"{folder}: its {MANIFEST} lists no file; delete {folder} and run the step that makes it again")
    for path in listed:
        if not path.is_file():
            raise UserError(f"{path}: is missing though {MANIFEST} lists it; delete {folder} and run the step that makes it again")
    for (path, expected), found in zip(listed.items(), _sums(listed), strict=True):
        if path.stat().st_size != expected["bytes"] or found != expected["sha256"]:
            raise UserError(
                f"{path}: differs from its checksum in {MANIFEST} (truncated or changed); "
                f"delete {folder} and run the step that makes it again"
            )


def listed_files(folder: Path) -> dict[str, dict[str, object]]:
    """Return the files that a folder's manifest lists. Raises UserError unless each has size and sum, and lies inside the folder."""
    path = folder / MANIFEST
    files = read_record(path).get("files")
    whole = isinstance(files, dict) and all(isinstance(entry, dict) and {"bytes", "sha256"} <= entry.keys() for entry in files.values())
    if not isinstance(files, dict) or not whole:
        raise UserError(f"{path}: is not a list of files with sizes and checksums; run the step that makes {folder} again")
    for name in files:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise UserError(f"{path}: lists {name!r}, which lies outside {folder}; run the step that makes the folder again")
    return files


def check_if_listed(folder: Path) -> None:
    """As check_folder where there is a manifest; a folder that was made elsewhere has none and passes."""
    if (folder / MANIFEST).exists():
        check_folder(folder)
