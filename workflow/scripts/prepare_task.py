"""One task of an experiment, from any of its sources, into the one form that the evaluation reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from hub_layouts import LAYOUTS
from pat.errors import UserError
from pat.items import Item, write_items
from pat.places import WRITES, Force
from pat.settings import Settings
from pat.sources import HubTask, JsonFile, Release
from release_prompts import release_items
from script_errors import run_reporting_errors
from script_places import Unmarked, guarded
from source_records import Record, file_records, hub_records, json_records, parse_source

KINDS: dict[str, type[Settings]] = {"hub": HubTask, "json": JsonFile, "release": Release}


def task_items(task: str, source: HubTask | JsonFile | Release) -> Iterator[Item]:
    """Yield the task's items in the order of their source. Raises UserError naming the place of a broken one."""
    if isinstance(source, Release):
        return release_items(Path(source.path), task)
    if isinstance(source, JsonFile):
        return _own_items(task, json_records(Path(source.path)))
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


def _own_items(task: str, records: Iterable[Record]) -> Iterator[Item]:
    """Yield items from records with question, choices and answer (its place, or its letter); id and group may be there.

    Raises UserError naming the place of a broken one. A choice that is there twice breaks none: MMLU as published has nine such items.
    """
    for number, record in enumerate(records):
        choices = record.fields.get("choices")
        if not isinstance(choices, list):
            raise UserError(f"{record.place}: choices must be a list of texts")
        try:
            answer = _place(record.fields.get("answer"))
            identifier = _identifier(record.fields.get("id"), f"{task}-{number}")
            yield Item(identifier, record.text("question"), tuple(choices), answer, task, record.text("group", default=""))
        except ValueError as error:
            raise UserError(f"{record.place}: {error}") from None


def _identifier(given: object, default: str) -> str:
    """Return an item's id. Raises ValueError where it is neither text nor a whole number."""
    if given is None:
        return default
    if isinstance(given, bool) or not isinstance(given, str | int):
        raise ValueError(f"id={given!r}: must be a text or a whole number")
    return str(given)


def _place(answer: Any) -> Any:
    is_letter = isinstance(answer, str) and len(answer) == 1 and "A" <= answer <= "Z"
    return ord(answer) - ord("A") if is_letter else answer


def prepare(task: str, source: str, out: Path, *, replace: bool = True) -> str:
    """Write the task's items to `out` and return what was written, in words."""
    block = parse_source(source, KINDS)
    assert isinstance(block, HubTask | JsonFile | Release)
    items = list(task_items(task, block))
    if not items:
        raise UserError(f"task {task!r}: its source {block.model_dump_json(exclude_none=True)} holds no items")
    write_items(out, items, replace=replace)
    (identifier, count), *_ = Counter(item.id for item in items).most_common(1)
    if count > 1:
        raise UserError(f"task {task!r}: gives {count} items the id {identifier!r}; every item needs one of its own")
    groups = len({item.group for item in items if item.group})
    return f"{out}: {len(items)} items" + (f" in {groups} groups" if groups else "") + _oddities(items)


def _oddities(items: Sequence[Item]) -> str:
    """Return, in words, how many items of a published set cannot be told right from wrong by their text; nothing where there are none."""
    repeated = [item.id for item in items if item.repeated_choice]
    asked = Counter((item.question, item.choices) for item in items)
    again = sum(count - 1 for count in asked.values())
    said = f"; {len(repeated)} with a choice that is there twice, the first {repeated[0]!r}" if repeated else ""
    return said + (f"; {again} that ask what another one asks" if again else "")


@guarded(Unmarked())
def main(
    task: Annotated[str, typer.Option(help="The task's name in the experiment.")],
    source: Annotated[str, typer.Option(help="The task's source block, as JSON.")],
    out: Annotated[Path, typer.Option(help="The JSONL to write."), WRITES],
    force: Force = False,
) -> None:
    """Write one task's items."""
    run_reporting_errors(lambda: prepare(task, source, out, replace=force))


if __name__ == "__main__":
    typer.run(main)
