"""Blocks of documents made from kept references: between two marks, what was run where, then its tables. Nothing is typed by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pat.errors import UserError
from pat.io.artefacts import read_json, read_text, write_text
from study.tables.times import sentence

SHOWN_TABLES = ("table1.md", "table1_acc.md", "table3.md", "table3_acc.md", "perplexity.md")


def marks(name: str) -> tuple[str, str]:
    """Return the two lines between which a document holds the tables of the reference `name`."""
    return f"<!-- {name}:start -->", f"<!-- {name}:end -->"


def readme_block(reference: Path) -> str:
    """Return what a document shows of a reference: where and by what it was made, then its tables."""
    origin = read_json(reference / "origin.json")
    commits = ", ".join(f"`{commit[:10]}`" for commit in origin["git_commits"])
    names = origin.get("shown", SHOWN_TABLES)
    shown = [(reference / "tables" / name).read_text(encoding="utf-8").strip() for name in names if (reference / "tables" / name).is_file()]
    again = "finish it" if "of_cells" in origin else "make it again"
    made_by = (
        f"From `{_shown_path(reference)}`: {counted(origin)}, {origin['machine']}, Python {', '.join(origin['python'])}, "
        f"torch {origin['versions']['torch']}, transformers {origin['versions']['transformers']}, commit {commits}. "
        f"{sentence(origin['times'], origin.get('unmeasured', {})) + ' ' if 'times' in origin else ''}"
        f"To {again}: `make reference CONFIG={origin['experiment']}{_show_option(names)}`."
    )
    return "\n\n".join([made_by, *shown])


def counted(origin: Mapping[str, object]) -> str:
    """Return how many cells a reference has, by its record; of how many, where the experiment is not finished."""
    of_cells = f" of {origin['of_cells']}" if "of_cells" in origin else ""
    return f"{origin['cells']}{of_cells} cells"


def _show_option(names: Sequence[str]) -> str:
    return "" if tuple(names) == SHOWN_TABLES else f' SHOW="{" ".join(names)}"'


def _shown_path(reference: Path) -> str:
    return "/".join(reference.parts[-3:])


def with_block(readme: str, name: str, block: str, document: str = "README.md") -> str:
    """Return a document's text with the marked block replaced. Raises UserError where its marks are missing, or there more than once."""
    start, end = marks(name)
    if readme.count(start) > 1 or readme.count(end) > 1:
        raise UserError(
            f"{document}: has the lines {start} and {end} more than once; leave those between which the tables of {name} belong"
        )
    before, found_start, rest = readme.partition(start)
    _, found_end, after = rest.partition(end)
    if not (found_start and found_end):
        raise UserError(f"{document}: lacks the lines {start} and {end}, between which the tables of {name} belong")
    return f"{before}{start}\n{block}\n{end}{after}"


def check_block(document: Path, name: str) -> None:
    """Raise UserError where a document cannot be read, or has no place for a block."""
    with_block(read_text(document), name, "", str(document))


def write_block(document: Path, name: str, block: str) -> None:
    """Replace a document's block; its lines end as they did, and where the document is a link, what it leads to is written."""
    text = with_block(read_text(document), name, block, str(document))
    ends = "\r\n" if b"\r\n" in document.read_bytes() else "\n"
    write_text(document.resolve(), text.replace("\n", ends))
