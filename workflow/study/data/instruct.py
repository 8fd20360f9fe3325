"""The instruction set of an experiment, from any of its sources, as instruction, input and output."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

from pat.data.prompts import lettered_question, letters
from pat.errors import UserError
from pat.io.artefacts import write_jsonl
from pat.settings.fields import Settings
from study.commands.sets import command_line, parse_source
from study.sources.items import task_items
from study.sources.kinds import Hub, JsonRows, Tasks
from study.sources.records import Record, hub_records, json_records
from study.sources.rows import usable_row

KINDS: dict[str, type[Settings]] = {"hub": Hub, "json": JsonRows, "tasks": Tasks}


def source_records(source: Hub | JsonRows, seed: int) -> Iterator[Record]:
    """Yield the wanted fraction of the source's records, drawn with the seed, in their order."""
    if isinstance(source, JsonRows):
        records = list(json_records(Path(source.path)))
    else:
        records = list(hub_records(source.id, source.config, source.split, source.revision))
    kept = Random(seed).sample(range(len(records)), round(len(records) * source.fraction))
    yield from (records[place] for place in sorted(kept))


def task_rows(source: Tasks) -> Iterator[dict[str, str]]:
    """Yield the items of the source's tasks as the paper asks them, each answered by the letter of its right choice."""
    for task, block in source.of.items():
        for item in task_items(task, block):
            answer = letters(len(item.choices))[item.answer]
            yield {"instruction": lettered_question(item.question, item.choices), "input": "", "output": answer}


def prepare(source: str, seed: int, out: Path, *, replace: bool = True) -> str:
    """Write the instruction set to `out` and return what was written, in words."""
    block = parse_source(source, KINDS)
    assert isinstance(block, Hub | JsonRows | Tasks)
    read = list(task_rows(block)) if isinstance(block, Tasks) else [usable_row(record) for record in source_records(block, seed)]
    rows = [row for row in read if row is not None]
    if not rows:
        raise UserError(f"instruction set {block.model_dump_json()}: holds no usable row")
    write_jsonl(out, rows, replace=replace)
    blank = len(read) - len(rows)
    return f"{out}: {len(rows)} rows" + (f"; left out {blank} with a blank instruction or output" if blank else "")


main = command_line(prepare)
