"""What tells an output of this software from a user's file, by the verb that makes it: the mark without which nothing is replaced.

A finished folder's manifest names its maker and its files. Snakemake removes the manifest of what it is about to make again; the record
that every verb leaves beside it is then the mark. A file is known by the fields of its own kind of record.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pat.errors import UserError

MANIFEST = "manifest.json"
SEAL = ".seal"
"""Set by the workflow into folders of results."""
FOLDER_RECORDS = {
    "import.json": "import-model",
    "pretraining.json": "pretrain",
    "rotation.json": "rotate",
    "readers.json": "refit-readers",
    "encoding.json": "encode",
    "prune.json": "prune",
    "tuning.json": "tune",
    "merge.json": "merge",
    "export.json": "export",
}
"""What each step writes into the folder that it makes, and the verb that makes it."""
MODEL_FILES = (
    "*.safetensors", "*.gguf", "model.safetensors.index.json", "config.json", "generation_config.json", "origin.json",
    "lineage.json", "adapter_config.json", "pat_config.json", "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*",
    "merges.txt", "*.model", "chat_template*", "LICENSE*", "NOTICE*", "USE_POLICY*", "README.md", *FOLDER_RECORDS,
)  # fmt: skip
"""What the verbs write into folders, for one whose manifest is gone."""
LARGEST_RECORD_BYTES = 256 * 2**20
LARGEST_READ_BYTES = 2**20
"""Files up to this size are read again to see whether they are still what was written, larger ones where they are younger than the list."""
SHOWN = 3
SPECIAL: dict[Callable[[int], bool], str] = {
    stat.S_ISFIFO: "a pipe",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
    stat.S_ISSOCK: "a socket",
}


@dataclass(frozen=True)
class Folder:
    """A folder that `maker` fills; `record` is the file that only it writes, `sign` what that says, `files` how all it writes is called.

    `formerly` are the names that manifests of earlier versions give the maker.
    """

    maker: str
    record: str | None = None
    files: tuple[str, ...] = MODEL_FILES
    sign: str = '"provenance"'
    formerly: tuple[str, ...] = ()


@dataclass(frozen=True)
class Record:
    """A JSON object with certain fields, of which some have a certain value; `beside` are the files that are written along with it."""

    fields: frozenset[str]
    values: Mapping[str, object] = field(default_factory=dict)
    beside: tuple[tuple[Callable[[Path], Path], Record | Rows], ...] = ()


@dataclass(frozen=True)
class Rows:
    """JSON objects, one per line, with certain fields."""

    fields: frozenset[str]


Kind = Folder | Record | Rows


def samples_path(out: Path) -> Path:
    """Return where the answers to single items lie: beside the figures of an evaluation, whose name may have a dot, as llama-3.1 has."""
    return out.with_name(f"{out.stem if out.suffix == '.json' else out.name}_samples.jsonl")


def so_far_path(out: Path) -> Path:
    """Return where a long benchmark's figures lie until its record is whole."""
    return out.with_name(f"{out.stem}.so-far{out.suffix}")


def _measurement(kind: str, *, kept_so_far: bool = False) -> Record:
    record = Record(frozenset({"schema", "kind", "provenance"}), {"kind": kind})
    return Record(record.fields, record.values, ((so_far_path, record),)) if kept_so_far else record


ANSWERS = Rows(frozenset({"task", "id", "gold", "correct"}))
FOLDERS = {verb: Folder(f"pat {verb}", record) for record, verb in FOLDER_RECORDS.items()}
NOTHING = Record(frozenset())
"""What a verb writes that has no --out."""
KINDS: dict[str, Kind] = {
    **FOLDERS,
    "tasks": Folder("pat tasks", "tasks.json", ("*.yaml", "*.jsonl", "pat_tasks.py", "tasks.json")),
    "search-rate": Record(frozenset({"learning_rate", "candidates", "dev_rows", "provenance"})),
    "evaluate": Record(frozenset({"tasks", "mean", "perplexity", "provenance"}), beside=((samples_path, ANSWERS),)),
    # A merge's record has the same fields, with what was measured in the place of None.
    "sizes": Record(frozenset({"ratio_requested", "hidden_size", "parameters", "logit_gap", "provenance"}), {"logit_gap": None}),
    "fetch-tasks": Record(frozenset({"tasks", "made_by"}), {"made_by": "pat fetch-tasks"}),
    "benchmark inference": _measurement("inference", kept_so_far=True),
    "benchmark tune": _measurement("tuning"),
    "benchmark evaluation": _measurement("evaluation", kept_so_far=True),
    "benchmark prune": _measurement("prune"),
    "benchmark merge": _measurement("merge"),
    "benchmark export": _measurement("export", kept_so_far=True),
}
"""What each verb of the command line writes."""


def check_replaceable(out: Path, kind: Kind, *, force: bool = False) -> None:
    """Raise UserError unless `out`, and what is written beside it, is absent, empty, or bears the mark of this very kind.

    With `force` files, links and folders are the user's to give; pipes, devices and sockets never are.
    """
    problem = special(out) or (None if force else _obstacle(out, kind))
    if problem:
        raise UserError(f"{out}: {problem}")
    for place, its_kind in kind.beside if isinstance(kind, Record) else ():
        check_replaceable(place(out), its_kind, force=force)


def special(path: Path) -> str | None:
    """Return what makes a path no place for files: that it is a pipe, a device or a socket."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return None
    return next((f"is {name}; a file or a folder is needed" for is_one, name in SPECIAL.items() if is_one(mode)), None)


def _obstacle(out: Path, kind: Kind) -> str | None:
    if not os.path.lexists(out):
        return None
    if out.is_symlink():
        return f"is a link to {out.readlink()}; name the place itself, or give --force to replace the link"
    if isinstance(kind, Folder):
        return _in_the_way_of_folder(out, kind)
    if out.is_dir():
        return "is a folder, where a file is needed"
    whole = out.stat().st_size == 0 or (_has_fields(out, kind) if isinstance(kind, Record) else _first_row_has(out, kind))
    return None if whole else "is there already and is not what this command writes; name another place, or give --force to replace it"


def _in_the_way_of_folder(out: Path, kind: Folder) -> str | None:
    if not out.is_dir():
        return "is a file, where a folder is to be written; name another place, or give --force to replace it"
    names = sorted(_names(out))
    if not names and not os.path.lexists(out / MANIFEST):
        return None
    listed = _listed(out, kind)
    if listed is None:
        return f"is a folder that `{kind.maker}` has not made; name another place, or give --force to replace it"
    foreign = [name for name in names if not listed(name)]
    if not foreign:
        return None
    shown = ", ".join(foreign[:SHOWN]) + (", …" if len(foreign) > SHOWN else "")
    return (
        f"also holds what `{kind.maker}` has not written so ({shown}); move it away, name another place, or give --force to replace it all"
    )


def _names(folder: Path) -> Iterator[str]:
    """Yield the names of files, links and empty folders below a folder, but for its manifest and a seal."""
    for top, folders, files in os.walk(folder):
        links = [each for each in folders if Path(top, each).is_symlink()]
        empty = [] if folders or files or Path(top) == folder else ["."]
        for each in (*files, *links, *empty):
            name = Path(top, each).relative_to(folder).as_posix()
            if name not in (MANIFEST, SEAL):
                yield name


def _listed(out: Path, kind: Folder) -> Callable[[str], bool] | None:
    """Return what says of a name whether the folder's maker wrote it; None where the folder is not this maker's."""
    if (out / MANIFEST).is_file():
        manifest = _object(out / MANIFEST)
        files = manifest.get("files")
        if not isinstance(files, dict):
            return None
        made_by = manifest.get("made_by", kind.maker if _made_before_marks(files, kind) else None)
        ours = made_by in (kind.maker, *kind.formerly)
        return (lambda name: name in files and _is_as_written(out, name, files[name])) if ours else None
    if kind.record is None or not _says(out / kind.record, kind.sign):
        return None
    return lambda name: "/" not in name and any(fnmatchcase(name, pattern) for pattern in kind.files)  # no command writes subfolders


def _is_as_written(folder: Path, name: str, noted: object) -> bool:
    """Return whether a file is what its maker's manifest says of it; a card that was written anew, for one, is somebody's own."""
    try:
        path, listed = folder / name, (folder / MANIFEST).stat()
        found = path.lstat()
        if not isinstance(noted, dict) or not stat.S_ISREG(found.st_mode) or found.st_size != noted.get("bytes"):
            return False
        if found.st_size > LARGEST_READ_BYTES and found.st_mtime_ns < listed.st_mtime_ns:
            return True  # at the same tick of the clock it may have been changed since
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() == noted.get("sha256")
    except OSError:
        return False


def _made_before_marks(files: Mapping[str, object], kind: Folder) -> bool:
    """Return whether a manifest that names no maker, as until 0.1.0, is of this kind by the record in it."""
    if kind.record is None:
        return True
    if kind.maker == "pat import-model":
        return "config.json" in files and not FOLDER_RECORDS.keys() & files.keys()
    return kind.record in files


def _has_fields(path: Path, kind: Record) -> bool:
    found = _object(path)
    return kind.fields <= found.keys() and all(found[name] == value for name, value in kind.values.items())


def _first_row_has(path: Path, kind: Rows) -> bool:
    try:
        with path.open(encoding="utf-8") as stream:
            row = json.loads(stream.readline(LARGEST_RECORD_BYTES))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(row, dict) and kind.fields <= row.keys()


def _says(path: Path, sign: str) -> bool:
    try:
        return path.stat().st_size <= LARGEST_RECORD_BYTES and sign in path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False


def _object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; an empty one where it holds none, or more than any record of ours."""
    try:
        if path.stat().st_size > LARGEST_RECORD_BYTES:
            return {}
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


LOG_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ [\w.]+: (.*)")
"""How a line of a log begins, and what it says."""


def log_of(path: Path) -> str | None:
    """Return what the first line of a log of this software says, None where a file is none or is empty."""
    try:
        with path.open(encoding="utf-8") as stream:
            found = LOG_LINE.fullmatch(stream.readline(LARGEST_RECORD_BYTES).rstrip("\n"))
    except (OSError, ValueError):
        return None
    return found[1] if found else None


def check_log(path: Path) -> None:
    """Raise UserError unless a log may go to `path`: it is absent, empty, or a log of this software."""
    if problem := special(path):
        raise UserError(f"--log {path}: {problem}")
    if path.is_dir():
        raise UserError(f"--log {path}: is a folder, where a file is needed")
    if path.is_file() and path.stat().st_size and log_of(path) is None:
        raise UserError(f"--log {path}: is there already and is no log of pat; name another file")
