"""How a table, a figure or a report says that it is of fewer cells than its experiment has."""

from __future__ import annotations


def unfinished(made: int, of_cells: int | None) -> str:
    """Return it in words; "" where all cells are there, or their number is not known."""
    return "" if of_cells in (None, made) else f"UNFINISHED, {made} of {of_cells} cells"
