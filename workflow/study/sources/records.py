"""Records out of the places that data come from beside local files: data sets of the hub, and local copies of them.

What a record means is its reader's business; local files are read by pat.data.files.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pat.data.files import JSON_FORMATS, Record, records
from pat.errors import UserError
from study.sources.kinds import TABLE_FORMATS


def json_records(path: Path) -> Iterator[Record]:
    """Yield the objects of a .json or .jsonl, perhaps compressed. Raises UserError naming file and line."""
    if not path.name.endswith(JSON_FORMATS):
        raise UserError(f"{path}: must end in one of {', '.join(JSON_FORMATS)}")
    yield from records(path)


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
