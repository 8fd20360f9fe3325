"""What a record of a source is to a tuning, as an Alpaca row, and to whoever reads text, as a document. None of the files is known here."""

from __future__ import annotations

from pat.data.prompts import ANSWER_JOINT, alpaca_prompt
from pat.data.rows import OUTPUT_NAMES, blank_field, instruction_row
from pat.errors import UserError
from study.sources.records import Record


def usable_row(record: Record) -> dict[str, str] | None:
    """Return the record as an Alpaca row, or None where a blank instruction or output leaves nothing to learn.

    Raises UserError naming the record's place where a field is missing or is no text.
    """
    row = instruction_row(record.place, record.fields)
    return None if blank_field(row) else row


def document(record: Record) -> str:
    """Return the record's `text`, or its instruction and output in the Alpaca template. Raises UserError where it has neither."""
    if "text" in record.fields:
        return record.text("text")
    if "instruction" not in record.fields:
        raise UserError(f"{record.place}: has neither a text nor an instruction with {' or '.join(OUTPUT_NAMES)}")
    row = usable_row(record)
    return alpaca_prompt(row["instruction"], row["input"]) + ANSWER_JOINT + row["output"] if row else ""
