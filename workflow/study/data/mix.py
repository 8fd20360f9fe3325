"""Mixes prepared sets into the text that pruners, bases and refits measure on: each set with its share of the characters.

Whoever measures takes as many tokens as it needs from the rows in an order of its own, so the shares must hold of any part of the rows:
long texts are cut into pieces first. WikiText-2 in one file is a single row, which would come last, or first, or not at all.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pat.errors import UserError
from pat.io.artefacts import numbered_rows, write_jsonl
from pat.io.places import READS, WRITES, Force, Place, check_apart
from pat.settings.limits import LARGEST_SEED
from study.commands.errors import run_reporting_errors
from study.commands.places import Unmarked, guarded

MOST_CHARACTERS = 2**23
"""About two million tokens: whatever is measured takes a quarter of a million at most."""
PIECE_CHARACTERS = 4096
"""About a thousand tokens, half a block of what pruners measure on. The longest instructions with their answers are as long."""


def mixed(parts: Sequence[tuple[Path, float]], seed: int) -> list[dict[str, Any]]:
    """Return rows of the sets, in random order, so many of each that its characters are its share of all; long texts are in pieces.

    As much as the shares allow: the set that is shortest for its share is used up, and of the others the rest is left out.
    """
    generator = random.Random(seed)
    sets = [[piece for _, row in numbered_rows(path) for piece in _pieces(row)] for path, _ in parts]
    for rows in sets:
        generator.shuffle(rows)
    whole = sum(share for _, share in parts)
    shares = [share / whole for _, share in parts]
    total = min(MOST_CHARACTERS, *(sum(map(characters, rows)) / share for rows, share in zip(sets, shares, strict=True)))
    chosen = [row for rows, share in zip(sets, shares, strict=True) for row in _first(rows, share * total)]
    generator.shuffle(chosen)
    return chosen


def _pieces(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a row as it is, or a long text in pieces that end with a line, or with a word where lines are longer than a piece."""
    text = row.get("text")
    if not isinstance(text, str) or len(text) <= PIECE_CHARACTERS:
        yield dict(row)
        return
    start = 0
    while start < len(text):
        ends = (text.find(mark, start + PIECE_CHARACTERS) + 1 for mark in "\n ")
        end = next((end for end in ends if 0 < end <= start + 2 * PIECE_CHARACTERS), start + 2 * PIECE_CHARACTERS)
        if text[start:end].strip():
            yield {**row, "text": text[start:end]}
        start = end


def characters(row: Mapping[str, Any]) -> int:
    """Return the length of a row's text: all that is text in it, whatever the fields are called."""
    said = [message["content"] for message in row.get("messages", ())]
    return sum(len(value) for value in (*row.values(), *said) if isinstance(value, str))


def _first(rows: Sequence[dict[str, Any]], wanted: float) -> list[dict[str, Any]]:
    """Return the first rows up to the one that reaches so many characters, at least one."""
    taken: list[dict[str, Any]] = []
    length = 0
    for row in rows:
        if taken and length >= wanted:
            break
        taken.append(row)
        length += characters(row)
    return taken


@guarded(Unmarked())
def main(
    part: Annotated[list[str], typer.Option(help="<share>:<JSONL>; repeat it")],
    out: Annotated[Path, typer.Option(help="JSONL to write"), WRITES],
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="orders the rows")] = 0,
    force: Force = False,
) -> None:
    """Write the mix of some prepared sets."""

    def action() -> str:
        parts = [_parsed(text) for text in part]
        check_apart([Place("--out", out, WRITES), *(Place("--part", path, READS) for path, _ in parts)])
        rows = mixed(parts, seed)
        write_jsonl(out, rows, replace=force)
        return f"{out}: {len(rows)} rows, {sum(map(characters, rows)):,} characters"

    run_reporting_errors(action)


def _parsed(text: str) -> tuple[Path, float]:
    share, _, path = text.partition(":")
    try:
        size = float(share)
    except ValueError:
        raise UserError(f"--part {text!r}: must be <share>:<JSONL>") from None
    if not (0 < size < math.inf and path):
        raise UserError(f"--part {text!r}: must be <share>:<JSONL>, with a share above 0")
    return Path(path), size
