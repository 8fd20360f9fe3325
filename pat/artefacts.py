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

MANIFEST = "manifest.json"
HASHED_AT_ONCE = 8
"""Files whose checksums are formed side by side; a model is written in about as many shards."""


def write_text(path: Path, text: str) -> None:
    """Write `text` under `path` in one rename, making the parent folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    """Write `value` as JSON with sorted keys, so that equal values give equal bytes. NaN is refused."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Return the parsed file. Raises UserError where it is missing or is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is not valid JSON ({error}); delete it and run the step that makes it again") from None


def write_jsonl(path: Path, rows: Iterable[Mapping[str, object]]) -> int:
    """Write one JSON object a line; returns how many."""
    lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows]
    write_text(path, "".join(line + "\n" for line in lines))
    return len(lines)


def read_jsonl(path: Path, required: Sequence[str]) -> list[dict[str, Any]]:
    """Return the file's objects, each holding the `required` fields. Raises UserError naming file and line."""
    rows = []
    try:
        with path.open(encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    rows.append(_parsed_line(path, number, line, required))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text ({error})") from None
    if not rows:
        raise UserError(f"{path}: holds no rows")
    return rows


def _parsed_line(path: Path, number: int, line: str, required: Sequence[str]) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{number}: is not valid JSON ({error})") from None
    if not isinstance(row, dict):
        raise UserError(f"{path}:{number}: must be a JSON object, is {type(row).__name__}")
    missing = [field for field in required if field not in row]
    if missing:
        raise UserError(f"{path}:{number}: lacks the field(s) {', '.join(missing)}; it has {', '.join(sorted(row)) or 'none'}")
    return row


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield an empty sibling of `out`; on success add its manifest and put it in `out`'s place, on failure remove it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    _remove_stale_siblings(out)
    temporary.mkdir()
    try:
        yield temporary
        write_json(temporary / MANIFEST, manifest(temporary))
        replaced = out.with_name(f".{out.name}.{os.getpid()}.old.tmp")
        if out.exists():
            out.rename(replaced)
        temporary.rename(out)
        shutil.rmtree(replaced, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


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
    listed = {folder / name: expected for name, expected in read_json(folder / MANIFEST)["files"].items()}
    for path in listed:
        if not path.is_file():
            raise UserError(f"{path}: is missing though {MANIFEST} lists it; delete {folder} and run the step that makes it again")
    for (path, expected), found in zip(listed.items(), _sums(listed), strict=True):
        if path.stat().st_size != expected["bytes"] or found != expected["sha256"]:
            raise UserError(
                f"{path}: differs from its checksum in {MANIFEST} (truncated or changed); "
                f"delete {folder} and run the step that makes it again"
            )


def check_if_listed(folder: Path) -> None:
    """As check_folder where there is a manifest; a folder that was made elsewhere has none and passes."""
    if (folder / MANIFEST).exists():
        check_folder(folder)
