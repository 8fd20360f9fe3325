"""One task of an experiment, from any of its sources, into the one form that the evaluation reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from pat.data.items import Item, write_items
from pat.errors import UserError
from pat.io.places import WRITES, Force
from pat.settings.fields import Settings
from study.commands.errors import run_reporting_errors
from study.commands.places import Unmarked, guarded
from study.commands.sets import check_source_stays, parse_source
from study.sources.items import task_items
from study.sources.kinds import HubTask, JsonFile, Release

KINDS: dict[str, type[Settings]] = {"hub": HubTask, "json": JsonFile, "release": Release}


def prepare(task: str, source: str, out: Path, *, replace: bool = True) -> str:
    """Write the task's items to `out` and return what was written, in words."""
    block = parse_source(source, KINDS)
    assert isinstance(block, HubTask | JsonFile | Release)
    items = list(task_items(task, block))
    if not items:
        raise UserError(f"task {task!r}: its source {block.model_dump_json(exclude_none=True)} holds no items")
    (identifier, count), *_ = Counter(item.id for item in items).most_common(1)
    if count > 1:
        raise UserError(f"task {task!r}: gives {count} items the id {identifier!r}; every item needs one of its own")
    write_items(out, items, replace=replace)
    groups = len({item.group for item in items if item.group})
    return f"{out}: {len(items)} items" + (f" in {groups} groups" if groups else "") + _oddities(items)


def _oddities(items: Sequence[Item]) -> str:
    """Return, in words, how many items of a published set have a choice twice, or ask what another one asks; '' where none do."""
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

    def action() -> str:
        check_source_stays(source, out)
        return prepare(task, source, out, replace=force)

    run_reporting_errors(action)
