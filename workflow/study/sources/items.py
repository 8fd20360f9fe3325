"""The items of a task out of any of its sources: the reader of the workflow's preparation, and of the check before it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from pat.data.files import Record
from pat.data.items import Item, place_of
from pat.errors import UserError
from study.sources.hub_layouts import LAYOUTS
from study.sources.kinds import HubTask, JsonFile, Release
from study.sources.records import file_records, hub_records, json_records
from study.sources.release_prompts import release_items


def task_items(task: str, source: HubTask | JsonFile | Release) -> Iterator[Item]:
    """Yield the task's items in the order of their source. Raises UserError naming the place of a broken one."""
    if isinstance(source, Release):
        return release_items(Path(source.path), task)
    if isinstance(source, JsonFile):
        return (own_item(task, number, record) for number, record in enumerate(json_records(Path(source.path))))
    layout = LAYOUTS[source.layout]
    if source.path is not None:
        records = file_records(Path(source.path))
    else:
        config = source.config if source.id or source.config else layout.config
        records = hub_records(source.id or layout.dataset, config, source.split or layout.split, source.revision)
    return _hub_items(task, source.layout, records)


def _hub_items(task: str, layout: str, records: Iterable[Record]) -> Iterator[Item]:
    for number, record in enumerate(records):
        try:
            yield LAYOUTS[layout].read(record.fields).item(task, f"{task}-{number}")
        except KeyError as error:
            columns = ", ".join(sorted(record.fields))
            raise UserError(f"{record.place}: has no {error}, which the layout {layout!r} reads; it has {columns}") from None
        except (ValueError, TypeError, AttributeError) as error:
            raise UserError(f"{record.place}: does not fit the layout {layout!r}: {error}") from None


def own_item(task: str, number: int, record: Record) -> Item:
    """Return the item of a record with question, choices and answer (its place, or its letter); id and group may be there.

    Raises UserError naming the place of a broken one. A choice that is there twice breaks none: MMLU as published has nine such items.
    """
    choices = record.fields.get("choices")
    if not isinstance(choices, list):
        raise UserError(f"{record.place}: choices must be a list of texts")
    try:
        answer = place_of(record.fields.get("answer"))
        identifier = _identifier(record.fields.get("id"), f"{task}-{number}")
        return Item(identifier, record.text("question"), tuple(choices), answer, task, record.text("group", default=""))
    except ValueError as error:
        raise UserError(f"{record.place}: {error}") from None


def _identifier(given: object, default: str) -> str:
    """Return an item's id. Raises ValueError where it is neither text nor a whole number."""
    if given is None:
        return default
    if isinstance(given, bool) or not isinstance(given, str | int):
        raise ValueError(f"id={given!r}: must be a text or a whole number")
    return str(given)
