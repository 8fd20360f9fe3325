"""Tables written from cells, and read again."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from study.tables import writing as tables
from tests.kit.cell_maker import write_cell


def make(folder: Path, contents: Iterable[dict[str, object]]) -> list[Path]:
    return [write_cell(folder, content) for content in contents]


def rows_of(markdown_text: str) -> list[list[str]]:
    lines = [line for line in markdown_text.splitlines() if line.startswith("|")]
    return [[entry.strip() for entry in line.strip("|").split("|")] for line in lines]


def tables_of(folder: Path, contents: Iterable[dict[str, object]]) -> Path:
    tables.write_tables(make(folder / "cells", contents), folder / "tables")
    return folder / "tables"
