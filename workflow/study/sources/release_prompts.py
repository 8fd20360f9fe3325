"""The evaluation JSON of the paper's release as items: prompts are taken apart into question and lettered choices.

A file maps numbers to {"origin_prompt", "gold", …}; a prompt is the item's text, a line "A. …" for each choice, and "Answer:".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from string import ascii_uppercase

from pat.data.files import Record, opened
from pat.data.items import Item
from pat.errors import UserError
from pat.io.artefacts import parse_json

CLOSING = "\nAnswer:"
LABELLED = re.compile(r"([A-Z])\. ")


def release_items(path: Path, task: str) -> Iterator[Item]:
    """Yield every item of a file, or of a folder of files, each then a group. Raises UserError naming file and item."""
    if not path.is_dir():
        yield from _file_items(path, task, group="")
        return
    files = sorted(path.glob("*.json"))
    if not files:
        raise UserError(f"{path}: holds no .json file")
    for file in files:
        yield from _file_items(file, task, group=file.stem)


def _file_items(path: Path, task: str, group: str) -> Iterator[Item]:
    with opened(path) as stream:
        entries = parse_json(stream.read(), str(path))
    if not isinstance(entries, dict) or not entries:
        raise UserError(f"{path}: must map item numbers to items")
    for key, entry in entries.items():
        record = Record(f"{path}: item {key}", entry if isinstance(entry, dict) else {})
        try:
            yield _item(record, task, group, key)
        except ValueError as error:
            raise UserError(f"{record.place}: {error}") from None


def _item(record: Record, task: str, group: str, key: str) -> Item:
    question, choices = take_apart(record.text("origin_prompt"))
    gold = record.text("gold")
    if len(gold) != 1 or gold not in ascii_uppercase[: len(choices)]:
        raise ValueError(f"gold={gold!r}: must be one of {', '.join(ascii_uppercase[: len(choices)])}")
    identifier = "-".join(part for part in (task, group, key) if part)
    stripped = tuple(choice.strip() for choice in choices)
    return Item(identifier, question.strip(), stripped, ascii_uppercase.index(gold), task, group)


def take_apart(prompt: str) -> tuple[str, list[str]]:
    """Return question and choices of a prompt, exactly as they stand in it. Raises ValueError where it has no lettered choices."""
    if not prompt.endswith(CLOSING):
        raise ValueError(f"the prompt must end in {CLOSING.strip()!r}, ends in {prompt[-20:]!r}")
    lines = prompt.removesuffix(CLOSING).split("\n")
    starts = _one_line_each(lines) or _several_lines_each(lines)
    if not starts:
        raise ValueError("the prompt has no lines 'A. …', 'B. …' before 'Answer:'")
    if starts[0] == 0:
        raise ValueError("the prompt has no question before its choices")
    ends = [*starts[1:], len(lines)]
    choices = ["\n".join(lines[start:end])[len("A. ") :] for start, end in zip(starts, ends, strict=True)]
    return "\n".join(lines[: starts[0]]), choices


def _label(line: str) -> str:
    found = LABELLED.match(line)
    return found.group(1) if found else ""


def _one_line_each(lines: Sequence[str]) -> list[int]:
    """Return where the choices start if the last lines are A, B, … without a line between; this reading is sure."""
    count = ascii_uppercase.find(_label(lines[-1]) or "?") + 1
    first = len(lines) - count
    if count < 2 or first < 0 or [_label(line) for line in lines[first:]] != list(ascii_uppercase[:count]):
        return []
    return list(range(first, len(lines)))


def _several_lines_each(lines: Sequence[str]) -> list[int]:
    """Return where the choices start if some go over several lines: from the last "A. " that a "B. " follows, letter by letter."""
    for first in reversed(range(len(lines))):
        if _label(lines[first]) == "A":
            starts = [first]
            for place in range(first + 1, len(lines)):
                if _label(lines[place]) == ascii_uppercase[len(starts)]:
                    starts.append(place)
            if len(starts) > 1:
                return starts
    return []
