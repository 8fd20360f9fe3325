"""Which share of all parameters the rows of a table have really lost, where that is far from what was asked for."""

from __future__ import annotations

from collections.abc import Sequence

from study.experiment.shortfall import is_off
from study.results.cells import Cell, Row

AS_ASKED = 0.01
"""Share of what was asked for: a model that has lost as much within it is said to have lost that."""


def removed(cell: Cell) -> float:
    """Return the share of all parameters that a cell's model has lost."""
    return 1 - cell.parameters.after.unique / cell.parameters.before.unique


def pruned(cells: Sequence[Cell], row: Row) -> str:
    """Return the entry of a row's first column: the ratio asked for, and the share really removed that is farthest off it."""
    asked = f"{100 * row.ratio:.4g} %"
    off = [share for cell in cells if cell.row == row and is_off(row.ratio, share := removed(cell), AS_ASKED)]
    return f"{asked} (really {100 * max(off, key=lambda share: abs(share - row.ratio)):.1f} %)" if off else asked


def shortfall_notes(cells: Sequence[Cell]) -> list[str]:
    """Explain the entries that say how much was really removed, nothing where there are none."""
    shares = [(cell.ratio_requested, removed(cell)) for cell in cells]
    if not any(is_off(*each, AS_ASKED) for each in shares):
        return []
    told = "really: the share of all parameters removed, where it is more than a hundredth off what was asked for."
    return [f"{told} Where it is more than a fifth off, do not compare at the ratio." if any(is_off(*each) for each in shares) else told]
