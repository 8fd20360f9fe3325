"""Draws figure 3 of the paper, the gate M against the proxy w at several steps, from the code that trains with it (pat.method.mask).

The only figure that imports torch: a second copy of the formula could drift from the one in use.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch
from matplotlib.figure import Figure

from pat.io.artefacts import write_text
from pat.method.mask import gate, offset, temperature
from study.figures.style import BLACK, BLUE, GREEN, ORANGE, VERMILION, figure, grid_lines, save
from study.tables.layouts import csv_text

MILESTONE_STEP = 1000
SHARES = (0.0, 0.1, 0.25, 0.5, 0.9, 1.0)
COLORS = (BLACK, BLUE, ORANGE, GREEN, VERMILION, BLACK)
STYLES = (":", "-", "-.", "--", "-", "-")
REACH = 1.0


def gate_values() -> pd.DataFrame:
    """Return the gate over the proxy (column w), a column per share s/s0 of the way to the milestone; at s0 it is the step function."""
    proxy = torch.linspace(-REACH, REACH, 401, dtype=torch.float64)
    values = {"w": proxy.tolist()}
    for share in SHARES:
        step = round(share * MILESTONE_STEP)
        if step == MILESTONE_STEP:
            mask = (proxy > 0).double()
        else:
            mask = gate(proxy, temperature(step, MILESTONE_STEP), offset(step, MILESTONE_STEP))
        values[f"{share:g}"] = mask.tolist()
    return pd.DataFrame(values)


def draw(data: pd.DataFrame, drawing: Figure) -> None:
    """Fill `drawing` with one line per step."""
    axes = drawing.subplots()
    for share, color, style in zip(SHARES, COLORS, STYLES, strict=True):
        thin = share == SHARES[-1]
        axes.plot(data["w"], data[f"{share:g}"], color=color, linestyle=style, linewidth=0.9 if thin else 1.6, label=f"{share:g}")
    axes.set(xlabel="proxy w", ylabel="gate M", xlim=(-REACH, REACH), ylim=(-0.03, 1.45))
    axes.xaxis.set_major_formatter("{x:g}")
    grid_lines(axes)
    drawing.legend(loc="outside right center", title=f"s / s0\n(s0 = {MILESTONE_STEP})", alignment="left")


def write_gate(out: Path) -> None:
    """Write gate.png, gate.pdf and gate.csv into `out`."""
    data = gate_values()
    with figure(4.6, 2.7) as drawing:
        draw(data, drawing)
        save(drawing, out, "gate")
    write_text(out / "gate.csv", csv_text(data, digits=6))
