"""The contents of an experiment's data files, read as the preparation will read them: a broken row is reported before any work.

A file is read from its beginning up to a bound, which takes seconds; of what lies beyond it, in files of one row a line, some rows are
looked at, the last among them. Only what was read whole can be said to hold too little.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

from pat.data.files import Record, line_record, opened, packing_of, records
from pat.data.items import Item
from pat.data.rows import NOTHING_SAID
from pat.errors import UserError
from pat.io.artefacts import text_lines
from pat.settings.fields import Settings
from pat.settings.mistakes import shown
from study.experiment.schema import Experiment
from study.sources.items import own_item, task_items
from study.sources.kinds import HubTask, JsonFile, JsonRows, Release, RowFile, TextFile, World
from study.sources.rows import columns_of, document, usable_row

MOST_ROWS = 100_000
MOST_CHARACTERS = 2**26
"""Beyond either a file is not read on: together a few seconds."""
LARGEST_LIST_BYTES = 2**28
"""A list in a .json is read as a whole or not at all; a larger one is left to the preparation."""
SAMPLED_EVERY = 997
"""A prime, lest it falls in with the order of a file."""
BLOCK_BYTES = 2**20
EachT = TypeVar("EachT", bound=Record | Item)


def check_contents(source: Settings, name: str, *, as_text: bool) -> None:
    """Raise UserError on the first row of a local source that the preparation would refuse, and where there is nothing to prepare.

    `name` is what the source is called in its block, which items without an id are named after. `as_text`: rows are documents, else
    instructions; a source of items has neither. Paths are as seen from the working folder.
    """
    if isinstance(source, TextFile):
        _check_text(Path(source.path))
    elif isinstance(source, JsonRows | RowFile):
        _check_rows(source, partial(document if as_text else usable_row, columns=columns_of(source)))
    elif isinstance(source, HubTask | JsonFile | Release):
        _check_items(source, name)


def most_rows(experiment: Experiment) -> int | None:
    """Return how many rows the instruction set has at most; None where that is not known, or they are too many to be counted here.

    Raises UserError where the set is broken.
    """
    source = experiment.data.instruct
    if isinstance(source, World):
        return experiment.data.world.instruct_rows
    if not isinstance(source, JsonRows | RowFile) or _is_too_large(path := Path(experiment.path(source.path))):
        return None
    bounded = _Bounded(records(path))
    usable = sum(usable_row(record, columns_of(source)) is not None for record in bounded)
    return min(usable, round(bounded.rows * source.fraction)) if bounded.whole else None


def _check_text(path: Path) -> None:
    """Raise UserError where a plain text is not UTF-8, or blank; of a packed one so much is unpacked as of others is read."""
    blank, read = True, 0
    with opened(path) as stream:
        while read < MOST_CHARACTERS and (block := stream.read(BLOCK_BYTES)):
            blank, read = blank and not block.strip(), read + len(block)
        whole = not stream.read(1)
    if whole and blank:
        raise UserError(f"{path}: holds nothing but blanks")
    if not whole and not packing_of(path):
        _check_utf8(path)


def _check_utf8(path: Path) -> None:
    """Raise UserError where a file is not UTF-8 all through: decoding alone is as fast as the disk."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as stream:
        try:
            while block := stream.read(16 * BLOCK_BYTES):
                decoder.decode(block)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: cannot be read ({error})") from None


def _check_rows(source: JsonRows | RowFile, read: Callable[[Record], object]) -> None:
    path = Path(source.path)
    if _is_too_large(path):
        return
    bounded = _Bounded(records(path))
    usable = sum(bool(read(record)) for record in bounded)
    if bounded.whole and not round(bounded.rows * source.fraction):
        raise UserError(f"{path}: holds {bounded.rows} row(s), of which the fraction {source.fraction:g} leaves none")
    if bounded.whole and not usable:
        raise UserError(f"{path}: holds no usable row: {NOTHING_SAID}")
    if not bounded.whole:
        for record in _sampled_lines(path, bounded.rows):
            read(record)


def _check_items(source: HubTask | JsonFile | Release, task: str) -> None:
    path = Path(source.path or "")
    if isinstance(source, JsonFile) and _is_too_large(path):
        return
    places: dict[str, int] = {}
    bounded = _Bounded(task_items(task, source))
    for item in bounded:
        if (first := places.setdefault(item.id, bounded.rows)) != bounded.rows:
            raise UserError(f"{path}: items {first} and {bounded.rows} have the same id {shown(item.id)}; every item needs one of its own")
    if bounded.whole and not places:
        raise UserError(f"{path}: holds no items")
    if not bounded.whole and isinstance(source, JsonFile):
        for number, record in enumerate(_sampled_lines(path, bounded.rows)):
            own_item(task, number, record)


def _is_too_large(path: Path) -> bool:
    return path.is_file() and path.suffix == ".json" and path.stat().st_size > LARGEST_LIST_BYTES


class _Bounded(Generic[EachT]):
    """Records or items up to the bounds; afterwards how many they were, and whether they were all."""

    def __init__(self, source: Iterable[EachT]) -> None:
        self._source: Iterable[EachT] = source
        self.rows = 0
        self.whole = True

    def __iter__(self) -> Iterator[EachT]:
        characters = 0
        for each in self._source:
            if self.rows >= MOST_ROWS or characters >= MOST_CHARACTERS:
                self.whole = False
                return
            self.rows += 1
            characters += _length(each)
            yield each


def _sampled_lines(path: Path, first: int) -> Iterator[Record]:
    """Yield some rows of a file of one row a line from line `first` on, and the last row; none where the file is packed, or a list."""
    if path.suffix != ".jsonl":
        return
    last = (0, "")
    with path.open("rb") as stream:
        for number, line in text_lines(path, stream):
            last = (number, line)
            if number >= first and number % SAMPLED_EVERY == 0:
                yield line_record(path, number, line)
    yield line_record(path, *last)


def _length(each: Record | Item) -> int:
    """Return how many characters of text a record or an item has at the least."""
    values = each.fields.values() if isinstance(each, Record) else (each.question, *each.choices)
    return sum(len(value) if isinstance(value, str) else len(str(value)) for value in values if isinstance(value, str | list))
