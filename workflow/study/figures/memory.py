"""Draws figure 5 of the paper: memory of the loaded weights and accuracy against the pruning ratio, from cells and benchmarks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pat.io.artefacts import write_text
from study.figures.heading import heading
from study.figures.lines import names_in_order
from study.figures.style import BLACK, as_written, below, figure, from_zero, grid_lines, look_of, part_of, save, shared_out
from study.results.benchmarks import Inference, read_inference
from study.results.cells import models_of, rows_of
from study.results.grid import Grid, headline_grid
from study.tables.layouts import csv_text

BYTES_A_PARAMETER = 2
"""bf16, in which the paper loads its models."""
GIB = 2**30
MIB_IN_GIB = 1024
MEASURED = "measured"


def points(grid: Grid, benchmarks: Sequence[Inference]) -> pd.DataFrame:
    """Return the figure's data: one row per model, method and ratio.

    Weights in GiB are counted in bf16 from a cell's parameters, or measured by a benchmark, which has no accuracy.
    """
    return pd.DataFrame([*_of_cells(grid), *_of_benchmarks(benchmarks)])


def _of_cells(grid: Grid) -> Iterator[dict[str, object]]:
    for model in models_of(grid.cells):
        for row in rows_of(grid.cells):
            cells, value = grid.members(model, row), grid.mean(model, row)
            if cells and value is not None:
                parameters = fmean(cell.parameters.after.unique for cell in cells)
                yield {
                    "model": model, "method": row.method, "name": row.name, "ratio": row.ratio, "parameters": parameters,
                    "weights_gib": BYTES_A_PARAMETER * parameters / GIB, "of_unpruned": parameters / cells[0].parameters.before.unique,
                    "accuracy": value.mean, "ci95": value.half_width, "interval_over": value.source, "seeds": value.seeds,
                    "metric": grid.metric, "source": "cells, bf16",
                }  # fmt: skip


def _of_benchmarks(benchmarks: Sequence[Inference]) -> Iterator[dict[str, object]]:
    for benchmark in benchmarks:
        whole = benchmark.models[0]
        for model in benchmark.models:
            if model.weight_bytes is not None and whole.weight_bytes is not None:
                yield {
                    "model": benchmark.name, "method": MEASURED, "name": f"{MEASURED}, {benchmark.dtype}", "ratio": model.ratio_effective,
                    "parameters": model.parameters, "weights_gib": model.weight_bytes / GIB,
                    "of_unpruned": model.weight_bytes / whole.weight_bytes, "source": f"benchmark, {benchmark.dtype}",
                }  # fmt: skip


def draw(data: pd.DataFrame, columns: Sequence[_Column], drawing: Figure, title: str) -> None:
    """Fill `drawing` with a column per model, or several where the methods are many: memory above, accuracy below.

    Each has the methods that prune nothing.
    """
    positions = {method: position for position, method in enumerate(_names(data))}
    panels = drawing.subplots(2, len(columns), sharex=True, squeeze=False)
    unit, factor = ("GiB", 1) if data["weights_gib"].max() >= 1 else ("MiB", MIB_IN_GIB)
    data = data.assign(weights=factor * data["weights_gib"])
    for column, it in enumerate(columns):
        mine = data[data["model"] == it.model]
        upper, lower = panels[0, column], panels[1, column]
        for method in it.methods:
            _series(upper, lower, mine[mine["method"] == method], positions[method])
        measured = mine[mine["method"] == MEASURED].sort_values("ratio")
        if not measured.empty:
            name = as_written(measured["name"].iloc[0])
            upper.plot(100 * measured["ratio"], measured["weights"], "x", color=BLACK, markersize=7, label=name)
        if mine["accuracy"].isna().all():
            lower.set_axis_off()
        upper.set(title=it.title, ylim=(0, 1.08 * float(mine["weights"].max())))
        upper.xaxis.set_tick_params(labelbottom=bool(mine["accuracy"].isna().all()))
        (upper if mine["accuracy"].isna().all() else lower).set_xlabel("removed (%)")
        for axes in (upper, lower):
            grid_lines(axes)
    from_zero(panels.flat)
    _alike([axes for axes in panels[1] if axes.axison])
    panels[0, 0].set_ylabel(f"weights ({unit})")
    panels[1, 0].set_ylabel("mean accuracy (%)")
    below(drawing, panels.flat)
    drawing.suptitle(title, fontsize=9, x=0.01, ha="left")


def _names(data: pd.DataFrame) -> dict[str, str]:
    """Return the names of the cells' methods; their order fixes colours and signs."""
    return names_in_order(data[data["method"] != MEASURED])


@dataclass(frozen=True)
class _Column:
    """A model's two panels and the methods in them."""

    model: str
    title: str
    methods: Sequence[str]


def _alike(panels: Sequence[Axes]) -> None:
    """Give panels of accuracies one scale."""
    if panels:
        lowest, highest = (choose(axes.get_ylim()[end] for axes in panels) for end, choose in ((0, min), (1, max)))
        for axes in panels:
            axes.set_ylim(lowest, highest)


def _columns(data: pd.DataFrame) -> list[_Column]:
    """Return the columns; a model that was measured alone has one."""
    ratios = data.groupby("method")["ratio"].max()
    columns = []
    for model in sorted(data["model"].unique()):
        there = set(data.loc[data["model"] == model, "method"])
        whole, groups = shared_out([method for method in _names(data) if method in there], ratios)
        for number, group in enumerate(groups):
            columns.append(_Column(model, part_of(model, number, len(groups)), [*whole, *group]))
    return columns


def _series(upper: Axes, lower: Axes, mine: pd.DataFrame, position: int) -> None:
    if mine.empty:
        return
    color, marker = look_of(position)
    mine = mine.sort_values("ratio")
    name = as_written(mine["name"].iloc[0])
    upper.plot(100 * mine["ratio"], mine["weights"], color=color, marker=marker, label=name)
    errors = 100 * mine["ci95"].astype(float).fillna(0.0)
    lower.errorbar(
        100 * mine["ratio"],
        100 * mine["accuracy"],
        yerr=errors,
        color=color,
        marker=marker,
        capsize=2.5,
        elinewidth=1,
        label=name,
    )


def write_memory(paths: Sequence[Path], benchmarks: Sequence[Path], out: Path, *, of_cells: int | None = None) -> str:
    """Write memory.png, memory.pdf and memory.csv into `out`; returns the metric. Raises UserError on broken cells or benchmarks."""
    grid = headline_grid(paths)
    data = points(grid, [read_inference(path) for path in benchmarks])
    columns = _columns(data)
    with figure(max(1.4 + 2.4 * len(columns), 6.0), 5.2) as drawing:
        draw(data, columns, drawing, heading(grid, data["interval_over"].dropna(), "weights in bf16; ", of_cells=of_cells))
        save(drawing, out, "memory")
    write_text(out / "memory.csv", csv_text(data, digits=6))
    return grid.metric
