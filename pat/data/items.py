"""Multiple-choice items as they pass from the preparation of data to the evaluation: one checked form, one JSON line each.

Knows nothing of where items come from (the preparation does) nor of how they are scored.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pat.data.files import name_of, packing_of, records
from pat.data.prompts import letters
from pat.errors import UserError
from pat.io.artefacts import read_jsonl, write_jsonl

WRITTEN = ("question", "choices", "answer")
"""What a user gives."""
OTHER_FORMS = (".json", ".parquet")
"""Of files that hold no JSON lines."""
FIELDS = (*WRITTEN, "id", "task", "group")


@dataclass(frozen=True)
class Item:
    """A question with its choices; `answer` is the place of the right one. `group` is a task's subject, "" where it has none.

    Blanks around question and choices are stripped: a model would be scored on them. Raises ValueError on a field that cannot be.
    """

    id: str
    question: str
    choices: tuple[str, ...]
    answer: int
    task: str
    group: str = ""

    def __post_init__(self) -> None:
        for field in ("id", "question", "task"):
            if not isinstance(value := getattr(self, field), str) or not value.strip():
                raise ValueError(f"{field}={value!r}: must be a text that is not blank")
        if not isinstance(self.choices, tuple):
            raise ValueError(f"choices={self.choices!r}: must be a list of texts")
        if len(self.choices) < 2 or not all(isinstance(choice, str) and choice.strip() for choice in self.choices):
            raise ValueError(f"choices={list(self.choices)!r}: must be two or more texts, none of them blank")
        letters(len(self.choices))
        if isinstance(self.answer, bool) or not isinstance(self.answer, int) or not 0 <= self.answer < len(self.choices):
            letter, last = letters(len(self.choices))[-1], len(self.choices) - 1
            raise ValueError(f"answer={self.answer!r}: must be a whole number from 0 to {last}, or a letter from A to {letter}")
        if not isinstance(self.group, str):
            raise ValueError(f"group={self.group!r}: must be a text")
        object.__setattr__(self, "question", self.question.strip())
        object.__setattr__(self, "choices", tuple(choice.strip() for choice in self.choices))

    @property
    def repeated_choice(self) -> str | None:
        """Return a choice that is there twice, so that one of them counts as wrong although it says the same; None without one."""
        return next((choice for place, choice in enumerate(self.choices) if choice in self.choices[:place]), None)


def write_items(path: Path, items: Iterable[Item], *, replace: bool = True) -> int:
    """Write items as JSON lines, otherwise as write_text; returns how many."""
    return write_jsonl(path, (asdict(item) for item in items), replace=replace)


def _rows(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a task file: JSON lines whatever it is called, but for endings that say something else."""
    if not packing_of(path) and path.suffix not in OTHER_FORMS:
        return read_jsonl(path, WRITTEN)
    rows = []
    for record in records(path):
        if missing := [name for name in WRITTEN if name not in record.fields]:
            raise UserError(f"{record.place}: lacks the field {missing[0]}; it has {', '.join(sorted(record.fields)) or 'none'}")
        rows.append(dict(record.fields))
    if not rows:
        raise UserError(f"{path}: holds no rows")
    return rows


def read_items(path: Path) -> list[Item]:
    """Return a task file's items: as they were prepared, or as a user writes them, with question, choices and answer alone.

    Then the task is called as its file is, and the answer may be a letter. Raises UserError on a broken item, a repeated id or items of
    two tasks.
    """
    items = []
    name = name_of(path)
    for number, row in enumerate(_rows(path)):
        fields = {"id": f"{name}-{number}", "task": name, "group": ""} | {field: row[field] for field in FIELDS if field in row}
        try:
            items.append(Item(**fields | {"choices": _sequence(fields["choices"]), "answer": place_of(fields["answer"])}))
        except ValueError as error:
            raise UserError(f"{path}: item {fields['id']!r}: {error}") from None
    if len(tasks := {item.task for item in items}) > 1:
        raise UserError(f"{path}: holds items of the tasks {', '.join(sorted(tasks))}; a file is one task")
    if len({item.id for item in items}) < len(items):
        raise UserError(f"{path}: gives two items the same id")
    return items


def place_of(answer: Any) -> Any:
    """Return the place that a capital letter names, counted from 0; anything else as it is."""
    is_letter = isinstance(answer, str) and len(answer) == 1 and "A" <= answer <= "Z"
    return ord(answer) - ord("A") if is_letter else answer


def _sequence(choices: Any) -> Any:
    return tuple(choices) if isinstance(choices, list) else choices


def first_of_each_group(items: Iterable[Item], limit: int | None, group_limit: int | None = None) -> list[Item]:
    """Return the first `limit` items of a task, in their order; None keeps all.

    Of a task with groups, as many of each are kept, or the first `group_limit`.
    """
    taken: dict[str, int] = {}
    kept = []
    for item in items:
        most = (group_limit or limit) if item.group else limit
        taken[item.group] = taken.get(item.group, 0) + 1
        if most is None or taken[item.group] <= most:
            kept.append(item)
    return kept
