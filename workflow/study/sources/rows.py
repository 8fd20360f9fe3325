"""What a record of a source is to a tuning, as a row, and to whoever reads text, as a document. None of the files is known here."""

from __future__ import annotations

from pat.data.files import Record
from pat.data.rows import Columns, Row, as_document, blank_field, row_of
from pat.settings.fields import Settings
from study.sources.kinds import Hub, RowFile


def usable_row(record: Record, columns: Columns | None = None) -> Row | None:
    """Return the record as a row to learn from, or None where being blank leaves nothing to learn.

    Raises UserError naming the record's place where a field is missing or is no text.
    """
    row = row_of(record, columns)
    return None if blank_field(row) else row


def document(record: Record, columns: Columns | None = None) -> str:
    """Return the record's `text`, or what another form of row says as running text, "" where it is blank. Raises UserError as row_of."""
    if "text" in record.fields and not columns:
        return record.text("text")
    row = usable_row(record, columns)
    return as_document(row) if row else ""


def columns_of(source: Settings) -> Columns:
    """Return what a source calls our fields; nothing where it has our names."""
    return {str(ours): theirs for ours, theirs in source.columns.items()} if isinstance(source, RowFile | Hub) else {}
