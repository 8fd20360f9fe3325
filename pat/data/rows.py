"""Rows of instruction sets and of running text: the one reader for tuning, measuring, scoring and the preparation of data.

A row that is not what it should be is named with its place ("file:line"): a value that is no text would otherwise be learned as its
name, "None" or "nan".
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pat.errors import UserError
from pat.io.artefacts import numbered_rows
from pat.settings.mistakes import shown

OUTPUT_NAMES = ("output", "response")
"""Alpaca's name and LaMini's."""


def text_field(place: str, fields: Mapping[str, Any], *names: str, default: str | None = None) -> str:
    """Return the first of these fields that is there and not null. Raises UserError where none is, or where it is no text."""
    for name in names:
        value = fields.get(name)
        if value is not None:
            if not isinstance(value, str):
                raise UserError(f"{place}: {name} is {shown(value)}; must be a text")
            return value
    if default is not None:
        return default
    if empty := [name for name in names if name in fields]:
        raise UserError(f"{place}: {empty[0]} is null; must be a text")
    raise UserError(f"{place}: lacks the field {' or '.join(names)}; it has {', '.join(sorted(map(str, fields))) or 'none'}")


def instruction_row(place: str, fields: Mapping[str, Any]) -> dict[str, str]:
    """Return instruction, input and output of a row. Raises UserError where one is missing or is no text; they may be blank."""
    return {
        "instruction": text_field(place, fields, "instruction"),
        "input": text_field(place, fields, "input", default=""),
        "output": text_field(place, fields, *OUTPUT_NAMES),
    }


def blank_field(row: Mapping[str, str]) -> str | None:
    """Return which field of an instruction row leaves nothing to learn by being blank; None where there is something."""
    return next((name for name in ("instruction", "output") if not row[name].strip()), None)


def read_instructions(path: Path) -> list[dict[str, str]]:
    """Return the rows of an instruction set. Raises UserError naming file and line of a row that nothing can be learned from."""
    rows = []
    for number, fields in numbered_rows(path):
        row = instruction_row(f"{path}:{number}", fields)
        if blank := blank_field(row):
            raise UserError(f"{path}:{number}: {blank} is blank: nothing can be learned from this row; fill it in or leave the row out")
        rows.append(row)
    return rows


def read_texts(path: Path) -> list[str]:
    """Return the documents of a file of `text` rows, blank ones left out. Raises UserError naming file and line, or where none is left."""
    texts = [text_field(f"{path}:{number}", fields, "text") for number, fields in numbered_rows(path)]
    if not (kept := [text for text in texts if text.strip()]):
        raise UserError(f"{path}: holds nothing but blanks")
    return kept
