"""Files that pass between phases: written atomically, read with checks. Knows nothing of what is inside them.

A folder counts as finished when it holds `manifest.json`, the list of its files with sizes and SHA-256 sums, and it appears under
its final name in one rename. A killed job therefore leaves either the old state or the new one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pat.errors import UserError
from pat.storage import refusal, writing

MANIFEST = "manifest.json"
HASHED_AT_ONCE = 8
"""Files whose checksums are formed side by side; a model is written in about as many shards."""


def write_text(path: Path, text: str) -> None:
    """Write `text` under `path` in one rename, making the parent folders. Raises UserError where the disk refuses."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """As write_text, for bytes."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    """Write `value` as JSON with sorted keys, so that equal values give equal bytes. NaN is refused."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Return the parsed file. Raises UserError where it cannot be read or is not JSON."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise refusal(error, path) from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text ({error}); delete it and run the step that makes it again") from None
    return parse_json(text, str(path), "; delete it and run the step that makes it again")


def read_record(path: Path) -> dict[str, Any]:
    """As read_json, for a file that must hold an object."""
    record = read_json(path)
    if not isinstance(record, dict):
        raise UserError(f"{path}: must be a JSON object, is {type(record).__name__}; delete it and run the step that makes it again")
    return record


def parse_json(text: str, place: str, advice: str = "") -> Any:
    """Return the parsed text. Raises UserError that names its `place` where it is not JSON, or JSON beyond reading: depth, digits."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise UserError(f"{place}: is not valid JSON ({error}){advice}") from None
    except RecursionError:
        raise UserError(f"{place}: is not valid JSON (nested too deeply){advice}") from None


def write_jsonl(path: Path, rows: Iterable[Mapping[str, object]]) -> int:
    """Write one JSON object a line; returns how many."""
    lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows]
    write_text(path, "".join(line + "\n" for line in lines))
    return len(lines)


def read_jsonl(path: Path, required: Sequence[str]) -> list[dict[str, Any]]:
    """Return the file's objects, each holding the `required` fields. Raises UserError naming file and line."""
    return [row for _, row in numbered_rows(path, required)]


def numbered_rows(path: Path, required: Sequence[str] = ()) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number of each line that is not blank with its object, as read_jsonl. Raises UserError where there are none."""
    found = 0
    try:
        with path.open(encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    found += 1
                    yield number, _parsed_line(path, number, line, required)
    except OSError as error:
        raise refusal(error, path) from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text ({error})") from None
    if not found:
        raise UserError(f"{path}: holds no rows")


def _parsed_line(path: Path, number: int, line: str, required: Sequence[str]) -> dict[str, Any]:
    row = parse_json(line, f"{path}:{number}")
    if not isinstance(row, dict):
        raise UserError(f"{path}:{number}: must be a JSON object, is {type(row).__name__}")
    missing = [field for field in required if field not in row]
    if missing:
        raise UserError(f"{path}:{number}: lacks the field(s) {', '.join(missing)}; it has {', '.join(sorted(row)) or 'none'}")
    return row


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield an empty sibling of `out`; on success add its manifest and put it in `out`'s place, on failure remove it.

    Raises UserError where the disk refuses, whichever library was writing.
    """
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        with writing(out):
            out.parent.mkdir(parents=True, exist_ok=True)
            _remove_stale_siblings(out)
            temporary.mkdir()
            yield temporary
            write_json(temporary / MANIFEST, manifest(temporary))
            _put_in_place(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _put_in_place(temporary: Path, out: Path) -> None:
    replaced = out.with_name(f".{out.name}.{os.getpid()}.old.tmp")
    if out.exists():
        out.rename(replaced)
    temporary.rename(out)
    shutil.rmtree(replaced, ignore_errors=True)


def _remove_stale_siblings(out: Path) -> None:
    """Remove what killed runs of the same step left behind; the scheduler never runs one step twice at a time."""
    for stale in out.parent.glob(f".{out.name}.*.tmp"):
        shutil.rmtree(stale, ignore_errors=True)


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
        raise UserError(f"{folder}: no such folder")
    if not (folder / MANIFEST).exists():
        raise UserError(f"{folder}: has no {MANIFEST}: the step that makes this folder did not finish; run it again")
    listed = {folder / name: expected for name, expected in listed_files(folder).items()}
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
