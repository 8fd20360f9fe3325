"""Rows that a model learns from, in the four forms that people have them in, and running text: the one reader for tuning, measuring,
scoring and the preparation of data.

| form | fields | what is learned |
| --- | --- | --- |
| chat | `messages`, each with role and content; perhaps `system`, `tools` | what the assistant says |
| instruction | `instruction`, `input`, `output`, asked in the Alpaca template | the output |
| prompt | `prompt`, `completion`, joined as they are | the completion |
| text | `text` | all of it |

A row that is not what it should be is named with its place ("file:line"): a value that is no text would otherwise be learned as its
name, "None" or "nan".
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from pat.data.files import Record, records, text_field
from pat.data.prompts import ANSWER_JOINT, alpaca_prompt
from pat.errors import UserError
from pat.settings.mistakes import nearest, shown

OUTPUT_NAMES = ("output", "response")
"""Alpaca's name and LaMini's."""
INPUT_NAMES = ("input", "context")
"""Alpaca's name and Dolly's."""
MESSAGES_NAMES = ("messages", "conversations")
"""The usual name and ShareGPT's."""
SPEAKERS = {"human": "user", "gpt": "assistant"}
"""ShareGPT's names of the roles."""
SYSTEM, ASSISTANT = "system", "assistant"
ROLES = (SYSTEM, "user", ASSISTANT)
BESIDE_MESSAGES = (SYSTEM, "history")
"""What some files of instructions have too: what the system says, and earlier turns."""
TOOLS, WEIGHT = "tools", "weight"
"""Beside messages, the tools that may be called; in one, whether it is learned: 1, or 0, as OpenAI writes it."""
Column = Literal["messages", "prompt", "completion", "instruction", "input", "output", "text"]
Columns = Mapping[str, str]
"""Our name of a field → the file's."""
Row = dict[str, Any]
"""A row in one of the forms, with that form's fields alone."""
NOTHING_SAID = "every one is blank, or has no message of the role assistant"
FORMS = "messages, instruction and output, prompt and completion, or text"


def parse_columns(pairs: Sequence[str], option: str = "--column") -> dict[str, str]:
    """Return columns from texts "ours=theirs". Raises UserError on one of another form, or with a name that is not ours."""
    found: dict[str, str] = {}
    for pair in pairs:
        ours, equal, theirs = pair.partition("=")
        if not (equal and theirs):
            raise UserError(f"{option} {pair!r}: must be ours=theirs, such as instruction=question")
        if ours not in get_args(Column):
            raise UserError(f"{option} {pair!r}: {ours!r} is none of our fields{nearest(ours, get_args(Column))}")
        if ours in found:
            raise UserError(f"{option} {pair!r}: {ours} is given twice")
        if theirs in found.values():
            raise UserError(f"{option} {pair!r}: {theirs} is read as another of our fields already")
        found[ours] = theirs
    return found


def row_of(record: Record, columns: Columns | None = None) -> Row:
    """Return a record's row, by the fields that it has; with `columns` these alone are looked at. What it says may be blank.

    Raises UserError naming place and field where it has the fields of no form, where they are not what they should be, or where
    a column is named that its form has no place for.
    """
    if not columns:
        return _row_of(record.place, record.fields)
    row = _row_of(record.place, _renamed(record, columns))
    if unread := next((ours for ours in columns if ours not in row), None):
        raise UserError(f"{record.place}: {columns[unread]!r} is to be read as {unread}, which has no effect beside {' and '.join(row)}")
    return row


def _row_of(place: str, fields: Mapping[str, Any]) -> Row:
    if (name := next((name for name in MESSAGES_NAMES if fields.get(name) is not None), None)) is not None:
        return _conversation(place, fields, name)
    if "instruction" in fields:
        if (unread := next((name for name in BESIDE_MESSAGES if fields.get(name)), None)) is not None:
            raise UserError(
                f"{place}: {unread} is {shown(fields[unread])}, which the Alpaca template has no place for: give messages, or name the "
                "columns that are to be read"
            )
        return {
            "instruction": text_field(place, fields, "instruction"),
            "input": text_field(place, fields, *INPUT_NAMES, default=""),
            "output": text_field(place, fields, *OUTPUT_NAMES),
        }
    if "prompt" in fields:
        return {"prompt": text_field(place, fields, "prompt"), "completion": text_field(place, fields, "completion")}
    if "text" in fields:
        return {"text": text_field(place, fields, "text")}
    has = ", ".join(sorted(map(str, fields))) or "none"
    raise UserError(f"{place}: lacks the fields of a row ({FORMS}); it has {has}; name its columns where they are called otherwise")


def _renamed(record: Record, columns: Columns) -> dict[str, Any]:
    for ours, theirs in columns.items():
        if theirs not in record.fields:
            has = ", ".join(sorted(map(str, record.fields))) or "none"
            raise UserError(f"{record.place}: lacks the column {theirs!r}, which is to be read as {ours}; it has {has}")
    return {ours: record.fields[theirs] for ours, theirs in columns.items()}


def _conversation(place: str, fields: Mapping[str, Any], name: str) -> Row:
    """Return a conversation with what stands beside its messages: what the system says, as the first of them, and the tools there are."""
    messages, system = _messages(f"{place}: {name}", fields[name]), text_field(place, fields, SYSTEM, default="")
    if system.strip():
        begins_with = messages[0]["content"] if messages and messages[0]["role"] == SYSTEM else None
        if begins_with not in (None, system):
            raise UserError(f"{place}: {SYSTEM} is {shown(system)}, and {name}[0] says something else as {SYSTEM}; leave one of them out")
        messages = messages if begins_with is not None else [{"role": SYSTEM, "content": system}, *messages]
    tools = _listed(f"{place}: {TOOLS}", fields[TOOLS], "a list of tools") if fields.get(TOOLS) else []
    return {"messages": messages} | ({TOOLS: tools} if tools else {})


def _listed(place: str, value: object, what: str) -> list[Any]:
    """Return a list, or what a text of JSON holds as one: a CSV has no lists."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise UserError(f"{place} is {shown(value)}; must be {what}") from None
    if not isinstance(value, list):
        raise UserError(f"{place} is {shown(value)}; must be {what}")
    return value


def _messages(place: str, value: object) -> list[dict[str, Any]]:
    """Return checked messages, each with role and content, and with what else it says that is not null."""
    found = _listed(place, value, "a list of messages, each with role and content")
    return [_message(f"{place}[{number}]", message) for number, message in enumerate(found)]


def _message(place: str, message: object) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise UserError(f"{place} is {shown(message)}; must have role and content")
    role = text_field(place, message, "role", "from")
    if role not in ROLES and role.strip().lower() in ROLES:
        raise UserError(f"{place}: role is {shown(role)}; must be {role.strip().lower()!r}, as chat templates write it")
    content = text_field(place, message, "content", "value", default="" if message.get("tool_calls") else None)
    if message.get(WEIGHT) not in (None, 0, 1):
        raise UserError(f"{place}: {WEIGHT} is {shown(message[WEIGHT])}; must be 1, or 0 where the message is not to be learned")
    others = {name: value for name, value in message.items() if name not in ("role", "from", "content", "value") and value is not None}
    return {"role": SPEAKERS.get(role, role), "content": content, **others}


def blank_field(row: Row) -> str | None:
    """Return which field of a row leaves nothing to learn by being blank; None where there is something."""
    if "messages" in row:
        said = any(_says_something(message) for message in row["messages"] if is_learned(message))
        return None if said else "messages"
    needed = ("instruction", "output") if "instruction" in row else ("completion",) if "prompt" in row else ("text",)
    return next((name for name in needed if not row[name].strip()), None)


def is_learned(message: Mapping[str, Any]) -> bool:
    """Return whether a message is the assistant's, and not marked as one that is only read."""
    return message["role"] == ASSISTANT and message.get(WEIGHT) != 0


def _says_something(message: Mapping[str, Any]) -> bool:
    return bool(message["content"].strip() or message.get("tool_calls"))


def prompt_and_answer(row: Row) -> tuple[str, str] | None:
    """Return the prompt of a row of instruction or prompt, and what follows it; None for another form."""
    if "instruction" in row:
        return alpaca_prompt(row["instruction"], row["input"]), ANSWER_JOINT + row["output"]
    return (row["prompt"], row["completion"]) if "prompt" in row else None


def question_of(row: Row) -> tuple[str, ...]:
    """Return what a row asks, so that rows with the same can be kept together: all before the first answer; of a text all of it."""
    if "instruction" in row:
        return row["instruction"], row.get("input", "")
    if "messages" in row:
        roles = [message["role"] for message in row["messages"]]
        return tuple(message["content"] for message in row["messages"][: roles.index(ASSISTANT)])
    return (row["prompt"] if "prompt" in row else row["text"],)


def as_document(row: Row) -> str:
    """Return a row as running text, without any model's marks: a conversation as its contents, a blank line between them."""
    if "messages" in row:
        return "\n\n".join(message["content"] for message in row["messages"])
    pair = prompt_and_answer(row)
    return "".join(pair) if pair else str(row["text"])


def read_rows(path: Path, columns: Columns | None = None) -> Iterator[tuple[str, Row]]:
    """Yield place and row of each record, blank ones too. Raises UserError naming file, row and field, and where there are none."""
    place = None
    for record in records(path):
        place = record.place
        yield place, row_of(record, columns)
    if place is None:
        raise UserError(f"{path}: holds no rows")


def usable_rows(path: Path, columns: Columns | None = None) -> list[Row]:
    """Return the rows that something can be learned from. Raises UserError as `read_rows`, and where there are none."""
    rows = [row for _, row in read_rows(path, columns) if blank_field(row) is None]
    if not rows:
        raise UserError(f"{path}: holds no usable row: {NOTHING_SAID}")
    return rows


TEXT = "text"


def naming(column: str) -> dict[str, object]:
    """Return what a record says of the field that was read as text; nothing of the usual one."""
    return {} if column == TEXT else {"text_column": column}


def read_texts(path: Path, column: str = TEXT) -> list[str]:
    """Return the documents of a file of texts, blank ones left out. Raises UserError naming file and row, or where none is left."""
    texts = [record.text(column) for record in records(path)]
    if not texts:
        raise UserError(f"{path}: holds no rows")
    if not (kept := [text for text in texts if text.strip()]):
        raise UserError(f"{path}: holds nothing but blanks")
    return kept
