"""The instruction set of an experiment, from any of its sources, as rows of the forms that a tuning reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

from pat.data.files import Record, records
from pat.data.prompts import lettered_question, letters
from pat.data.rows import Row
from pat.errors import UserError
from pat.io.artefacts import write_jsonl
from pat.settings.fields import Settings
from study.commands.sets import command_line, parse_source
from study.sources.items import task_items
from study.sources.kinds import Hub, JsonRows, RowFile, Tasks
from study.sources.records import hub_records, json_records
from study.sources.rows import columns_of, usable_row

KINDS: dict[str, type[Settings]] = {"hub": Hub, "json": JsonRows, "file": RowFile, "tasks": Tasks}


def source_records(source: Hub | JsonRows | RowFile, seed: int) -> Iterator[Record]:
    """Yield the wanted fraction of the source's records, drawn with the seed, in their order."""
    if isinstance(source, Hub):
        found = list(hub_records(source.id, source.config, source.split, source.revision))
    else:
        found = list((json_records if isinstance(source, JsonRows) else records)(Path(source.path)))
    kept = Random(seed).sample(range(len(found)), round(len(found) * source.fraction))
    yield from (found[place] for place in sorted(kept))


def task_rows(source: Tasks) -> Iterator[Row]:
    """Yield the items of the source's tasks as the paper asks them, each answered by the letter of its right choice."""
    for task, block in source.of.items():
        for item in task_items(task, block):
            answer = letters(len(item.choices))[item.answer]
            yield {"instruction": lettered_question(item.question, item.choices), "input": "", "output": answer}


def prepare(source: str, seed: int, out: Path, *, replace: bool = True) -> str:
    """Write the instruction set to `out` and return what was written, in words."""
    block = parse_source(source, KINDS)
    assert isinstance(block, Hub | JsonRows | RowFile | Tasks)
    if isinstance(block, Tasks):
        read: list[Row | None] = list(task_rows(block))
    else:
        read = [usable_row(record, columns_of(block)) for record in source_records(block, seed)]
    rows = [row for row in read if row is not None]
    if not rows:
        raise UserError(f"instruction set {block.model_dump_json()}: holds no usable row")
    write_jsonl(out, rows, replace=replace)
    blank, double = len(read) - len(rows), len(rows) - len({json.dumps(row) for row in rows})
    said = f"; left out {blank} with nothing to learn, because they are blank" if blank else ""
    return f"{out}: {len(rows)} rows" + said + (f"; {double} are there a second time and stay" if double else "")


main = command_line(prepare)
