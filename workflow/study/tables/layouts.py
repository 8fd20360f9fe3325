"""A printed table and its renderings: Markdown, LaTeX and CSV. Knows nothing of cells or of what a number means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import pandas as pd

HOLE = "–"
WIDE = 8
"""A table of more columns than this is set small in LaTeX."""
MARKS = "†‡"
_FIT = r"\ifdefined\resizebox\let\fit\resizebox\else\def\fit#1#2#3{#3}\fi"
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "→": r"$\rightarrow$", "±": r"$\pm$", "−": r"$-$", "–": "--", "≈": r"$\approx$", "×": r"$\times$", "Δ": r"$\Delta$", "…": r"\ldots{}",
    "†": r"$^{\dagger}$", "‡": r"$^{\ddagger}$",
}  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """A table as it is printed: every entry is text, numbers are already rounded.

    The first `text_columns` columns are set left, the others right; `notes` stand below the table, one paragraph each.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    text_columns: int
    notes: Sequence[str] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(f"row {row!r} has {len(row)} entries, the header has {len(self.header)}")


def markdown(layout: Layout) -> str:
    """Return the table as Markdown (pipe table), the caption above and the notes below it."""
    rule = ["---"] * layout.text_columns + ["---:"] * (len(layout.header) - layout.text_columns)
    lines = [_markdown_row(layout.header), "| " + " | ".join(rule) + " |", *map(_markdown_row, layout.rows)]
    paragraphs = [_markdown_text(layout.caption), "\n".join(lines), *map(_markdown_text, layout.notes)]
    return "\n\n".join(paragraphs) + "\n"


def _markdown_row(entries: Sequence[str]) -> str:
    return "| " + " | ".join(_markdown_text(entry) for entry in entries) + " |"


def _markdown_text(text: str) -> str:
    for special in "\\|*_<>`&$~":
        text = text.replace(special, "\\" + special)
    return " ".join(text.split())


def latex(layout: Layout) -> str:
    """Return the table as a LaTeX fragment that needs no package; a rule parts the groups of equal first entries.

    A wide table spans both columns of a page, sets its intervals low, and is fitted to the line if the document loads graphicx.
    """
    wide = len(layout.header) > WIDE
    columns = "l" * layout.text_columns + "r" * (len(layout.header) - layout.text_columns)
    body = [_latex_row(layout.header, wide), r"\hline"]
    for row, after in pairwise([*layout.rows, None]):
        assert row is not None
        body.append(_latex_row(row, wide))
        if after is not None and after[0] != row[0]:
            body.append(r"\hline")
    tabular = [r"\begin{tabular}{" + columns + "}", r"\hline", *body, r"\hline", r"\end{tabular}"]
    notes = [r"\\[2pt]\parbox{\linewidth}{\footnotesize " + latex_text(note) + "}" for note in layout.notes]
    caption = r"\caption{" + latex_text(layout.caption) + "}"
    if wide:
        opening = [r"\begin{table*}", r"\centering\scriptsize\setlength{\tabcolsep}{3pt}", caption, _FIT, r"\fit{\linewidth}{!}{%"]
        lines = [*opening, *tabular, "}", *notes, r"\end{table*}"]
    else:
        lines = [r"\begin{table}", r"\centering\small", caption, *tabular, *notes, r"\end{table}"]
    return "\n".join(lines) + "\n"


def _latex_row(entries: Sequence[str], wide: bool) -> str:
    return " & ".join(_latex_entry(entry, wide) for entry in entries) + r" \\"


def _latex_entry(entry: str, wide: bool) -> str:
    mean, sign, width = entry.partition(" ± ")
    if not (wide and sign):
        return latex_text(entry)
    number = width.rstrip(MARKS)
    return latex_text(mean) + r"$_{\pm " + latex_text(number) + "}$" + latex_text(width.removeprefix(number))


def latex_text(text: str) -> str:
    """Return `text` with everything that LaTeX would read as a command made printable."""
    return "".join(_LATEX.get(character, character) for character in " ".join(text.split()))


def csv_text(frame: pd.DataFrame, digits: int | None = None) -> str:
    """Return the frame as CSV; floats in full, or rounded to `digits` significant digits."""
    return frame.to_csv(index=False, lineterminator="\n", float_format=None if digits is None else f"%.{digits}g")
