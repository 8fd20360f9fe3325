"""Draws figure 6 of the paper from benchmarks' JSONs: how many times faster a narrower model is, against the batch size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pat.benchmark.settings import runtime_of
from pat.errors import UserError
from pat.io.artefacts import write_text
from study.figures.style import BLACK, GREY, below, figure, grid_lines, look_of, save
from study.results.benchmarks import Inference, read_inference
from study.results.published import PrintedSpeedup
from study.tables.accuracy import percent
from study.tables.layouts import csv_text

PHASES = {"first_token": "first token", "decode": "decoding"}
MEASURED = "measured"
TICKS_APART = 1.5


def points(benchmarks: Sequence[Inference], printed: PrintedSpeedup) -> pd.DataFrame:
    """Return the figure's data: one row a shape, model, phase and batch size; `limit` is that of the arithmetic, by parameters.

    Where one of the two models did not fit, the row says which and has no speed-up.
    """
    return pd.DataFrame([record for benchmark in benchmarks for record in _of_benchmark(benchmark, printed)])


def _of_benchmark(benchmark: Inference, printed: PrintedSpeedup) -> list[dict[str, object]]:
    models = {model.name: model for model in benchmark.models}
    missing: dict[tuple[str, int], list[str]] = {}
    for it in benchmark.measurements:
        if it.status != MEASURED:
            missing.setdefault((it.against, it.batch_size), []).append(f"{it.model}: {it.status}")
    speedups = {(it.model, it.batch_size): it for it in benchmark.speedups}
    records: list[dict[str, object]] = []
    for name, batch_size in sorted({*missing, *speedups}, key=lambda key: (models[key[0]].ratio_effective, key)):
        model, speedup = models[name], speedups.get((name, batch_size))
        for phase in PHASES:
            spread = getattr(speedup, phase) if speedup else None
            records.append(
                {
                    "shape": benchmark.name, "runtime": runtime_of(compiled=benchmark.compiled), "phase": phase,
                    "model": name, "hidden_size": model.hidden_size,
                    "ratio_effective": model.ratio_effective, "batch_size": batch_size,
                    "speedup": spread and spread.median, "low": spread and spread.low, "high": spread and spread.high,
                    "limit": 1 / (1 - model.share_removed),
                    "paper": printed.lookup(benchmark.name, model.ratio_effective) if phase == "first_token" else None,
                    "missing": "; ".join(missing.get((name, batch_size), [])),
                    "context": benchmark.context, "dtype": benchmark.dtype,
                    "device": benchmark.machine.name,
                }
            )  # fmt: skip
    return records


def draw(data: pd.DataFrame, drawing: Figure, title: str) -> None:
    """Fill `drawing` with a column per shape and runtime: the first token above, decoding below; faint lines are arithmetic's limits."""
    columns = sorted(columns_of(data))
    panels = drawing.subplots(len(PHASES), len(columns), sharex="col", sharey=True, squeeze=False)
    for line, (phase, name) in zip(panels, PHASES.items(), strict=True):
        for axes, (shape, runtime) in zip(line, columns, strict=True):
            _panel(axes, data[(data["shape"] == shape) & (data["runtime"] == runtime) & (data["phase"] == phase)])
            axes.set_title(f"{shape}, {runtime}, {name}", fontsize=8)
        line[0].set_ylabel("times faster than unpruned")
    for axes in panels[-1]:
        axes.set_xlabel("batch size")
    below(drawing, panels.flat, last="equally fast")
    drawing.suptitle(title, fontsize=9, x=0.01, ha="left")


def columns_of(data: pd.DataFrame) -> set[tuple[str, str]]:
    """Return the shapes and runtimes that there are."""
    return set(zip(data["shape"], data["runtime"], strict=True))


def _panel(axes: Axes, data: pd.DataFrame) -> None:
    widths = data.sort_values("ratio_effective").drop_duplicates("model")["model"]
    for position, model in enumerate(widths):
        color, marker = look_of(position)
        mine = data[(data["model"] == model) & data["speedup"].notna()].sort_values("batch_size")
        first = data[data["model"] == model].iloc[0]
        axes.axhline(first["limit"], color=color, linewidth=0.7, linestyle=":", alpha=0.8)
        around = [mine["speedup"] - mine["low"], mine["high"] - mine["speedup"]]
        label = f"{model} ({percent(round(first['ratio_effective'], 3))} removed)"
        axes.errorbar(mine["batch_size"], mine["speedup"], yerr=around, color=color, marker=marker, capsize=2.5, elinewidth=1, label=label)
        if pd.notna(first["paper"]):
            axes.axhline(first["paper"], color=BLACK, linewidth=1, linestyle="-.", label=f"printed in the paper, {first['paper']:g}")
    gone = sorted(set(data.loc[data["missing"] != "", "batch_size"]))
    if gone:
        axes.plot(gone, [1.0] * len(gone), "x", color=GREY, markersize=7, label="out of memory")
    axes.axhline(1, color=GREY, linewidth=1, linestyle=(0, (4, 2)), label="equally fast")
    axes.set_xscale("log", base=2)
    axes.set_xticks(_apart(sorted(data["batch_size"].unique())))
    axes.xaxis.set_major_formatter("{x:g}")
    grid_lines(axes)


def _apart(batch_sizes: Sequence[float]) -> list[float]:
    """Return the batch sizes whose labels do not run into the one before."""
    shown: list[float] = []
    for size in batch_sizes:
        if not shown or size >= TICKS_APART * shown[-1]:
            shown.append(size)
    return shown


def write_speedup(paths: Sequence[Path], out: Path) -> int:
    """Write speedup.png, speedup.pdf and speedup.csv into `out`; returns the number of shapes. Raises UserError on broken files."""
    benchmarks = [read_inference(path) for path in paths]
    if not benchmarks:
        raise UserError("--benchmark: names no file; at least one JSON of `pat benchmark inference` is needed")
    data = points(benchmarks, PrintedSpeedup())
    devices = ", ".join(sorted({it.machine.name for it in benchmarks}))
    details = ", ".join(sorted({f"context {it.context}, {it.dtype}" for it in benchmarks}))
    heading = f"{devices}; {details}\nbars: range of the rounds; dotted: limit by parameters"
    with figure(max(1.2 + 2.6 * len(columns_of(data)), 4.6), 5.2) as drawing:
        draw(data, drawing, heading)
        save(drawing, out, "speedup")
    write_text(out / "speedup.csv", csv_text(data, digits=6))
    return len(benchmarks)
