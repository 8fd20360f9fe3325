"""Shows one tuning run's health from its tuning.json: the losses, the mask and the learning rate over the steps, the milestone marked.

Writes health.csv, health.png and health.pdf and says in a line whether the count is exact and whether the milestone was a shock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from pat.checkpoints.origin import quantised_as
from pat.errors import UserError
from pat.io.artefacts import read_json, write_text
from study.figures.style import BLUE, GREEN, GREY, ORANGE, VERMILION, as_written, figure, grid_lines, save
from study.results.milestones import choice, verdict
from study.tables.layouts import csv_text

HISTORY = (
    "step", "instruct_loss", "identity_loss", "active_loss", "kept", "mask_mean", "proxy_min", "proxy_max", "proxy_std", "tau", "beta",
    "operator_distance", "down_moved", "up_moved", "instruct_gradient", "identity_gradient", "learning_rate", "loss",
)  # fmt: skip
REQUIRED = ("hidden_size", "width", "history", "health")
HISTOGRAM, HISTOGRAM_STEP = "mask_histogram", 0.1
"""Channels by their mask's value: a column per bin, named by its middle, 0.1 apart from 0 on."""
SPARSE = 20
"""Runs with fewer logged steps get a dot at each."""
LINEAR_BELOW = 0.01
"""Where the logarithmic axis of the mask's and the operators' losses begins."""


def read_run(path: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """Return a tuning.json and its history, one row a logged step. Raises UserError where it is not such a file."""
    record = read_json(path)
    missing = [name for name in REQUIRED if not isinstance(record, dict) or name not in record]
    if missing:
        raise UserError(f"{path}: is not a tuning run's record: lacks {', '.join(missing)}")
    history = record["history"]
    if not isinstance(history, list) or not all(isinstance(entry, dict) and "step" in entry for entry in history):
        raise UserError(f"{path}: history must be a list of objects that each have a step")
    frame = pd.DataFrame(history, columns=list(HISTORY)).apply(pd.to_numeric).astype(float)
    bins = pd.DataFrame([entry.get(HISTOGRAM) or [] for entry in history], dtype=float)
    bins.columns = pd.Index([f"mask {place * HISTOGRAM_STEP:.1f}" for place in range(bins.shape[1])])
    return record, pd.concat([frame, bins], axis=1).sort_values("step", ignore_index=True)


def draw(record: Mapping[str, Any], history: pd.DataFrame, drawing: Figure, title: str) -> None:
    """Fill `drawing` with the panels the run has: two where nothing was pruned; else six, two more of operators that were watched, and the
    mask's histogram where there is one.
    """
    formats = quantised_as(record.get("origin"))
    origin = f"its base is quantised ({formats})" if formats else ""
    lines = (as_written(title), origin, verdict(record["health"], record["width"]), choice(record["health"]))
    said = "\n".join(line for line in lines if line)
    drawing.suptitle(said, fontsize=9, x=0.01, ha="left")
    if history.empty:
        drawing.text(0.5, 0.4, "no step was logged: tuning.log_steps is above the number of steps", ha="center", color=GREY)
        return
    masked = bool(history["kept"].notna().any())
    milestone_step = (record["health"] or {}).get("milestone_step") if masked else None
    channels = partial(_channels, hidden_size=record["hidden_size"], width=record["width"])
    of_mask: list[Callable[[Axes, pd.DataFrame], None]] = [_terms, channels, _proxy, _gate]
    of_operators = [_operators, _gradients] if _has_operators(history) else []
    panels = [_loss, *of_mask, *of_operators, _rate] if masked else [_loss, _rate]
    places: list[Any] = [[2 * line, 2 * line + 1] for line in range(len(panels) // 2)]
    if _bins(history):
        places.append([len(panels)] * 2)
        panels.append(_histogram)
    grid = drawing.subplot_mosaic(places, sharex=True)
    for place, panel in enumerate(panels):
        axes = grid[place]
        panel(axes, history)
        grid_lines(axes)
        axes.set_xlim(0, float(history["step"].max()) * 1.02)
        if milestone_step is not None:
            axes.axvline(milestone_step, color=GREY, linestyle=(0, (4, 2)), linewidth=1)
    if milestone_step is not None:
        grid[0].annotate("milestone", (milestone_step, 0), xycoords=("data", "axes fraction"), xytext=(3, 3),
                         textcoords="offset points", color=GREY, fontsize=7.5)  # fmt: skip
    for place in places[-1]:
        grid[place].set_xlabel("optimizer step")


def _loss(axes: Axes, history: pd.DataFrame) -> None:
    _line(axes, history, "instruct_loss", "cross-entropy", BLUE)
    axes.set(title="Cross-entropy (nats)", ylim=(0, 1.08 * float(history["instruct_loss"].max())))


def _terms(axes: Axes, history: pd.DataFrame) -> None:
    _line(axes, history, "identity_loss", "identity", BLUE)
    _line(axes, history, "active_loss", "active", VERMILION, "--")
    largest = history[["identity_loss", "active_loss"]].max().max()
    if largest > LINEAR_BELOW:  # else the axis had no round value to name
        axes.set_yscale("symlog", linthresh=LINEAR_BELOW)
    axes.set(title="Other loss terms" + (f" (linear below {LINEAR_BELOW:g})" if largest > LINEAR_BELOW else ""), ylim=(0, None))
    axes.legend(loc="best")


def _channels(axes: Axes, history: pd.DataFrame, hidden_size: int, width: int) -> None:
    axes.axhline(width, color=GREY, linewidth=1, linestyle=":", label=f"asked for: {width}")
    _line(axes, history, "kept", "open (proxy above 0)", BLUE)
    axes.plot(history["step"], history["mask_mean"] * hidden_size, color=ORANGE, linestyle="--", label="sum of the mask")
    axes.set(title=f"Channels, of {hidden_size}", ylim=(0, hidden_size * 1.05))
    axes.legend(loc="lower right")


def _proxy(axes: Axes, history: pd.DataFrame) -> None:
    spread = history["proxy_std"]
    axes.fill_between(history["step"], -spread, spread, color=BLUE, alpha=0.25, linewidth=0, label="± standard deviation")
    _line(axes, history, "proxy_max", "largest", GREEN)
    _line(axes, history, "proxy_min", "smallest", VERMILION, "--")
    axes.set(title="Proxy")
    axes.legend(loc="best")


def _gate(axes: Axes, history: pd.DataFrame) -> None:
    _line(axes, history, "tau", "temperature τ (then infinite)", BLUE)
    axes.plot(history["step"], history["beta"].where(history["beta"] > 0), color=VERMILION, linestyle="--", label="offset β (then 0)")
    axes.set_yscale("log")
    axes.set(title="Gate")
    axes.legend(loc="center right")


def _bins(history: pd.DataFrame) -> list[str]:
    """Return the columns that hold the mask's histogram; none in records of runs from before it was kept."""
    return [name for name in map(str, history.columns) if name.startswith("mask ") and history[name].notna().any()]


def _histogram(axes: Axes, history: pd.DataFrame) -> None:
    """Draw how the channels spread over the mask's values, darker where more of them are, on a scale that shows few as well."""
    bins = _bins(history)
    share = history[bins].div(history[bins].sum(axis=1), axis=0).to_numpy().T
    values = [float(name.removeprefix("mask ")) for name in bins]
    image = axes.pcolormesh(history["step"], values, 100 * share, cmap="Blues", norm=PowerNorm(0.5, 0, 100), shading="nearest")
    axes.figure.colorbar(image, ax=axes, label="channels (%)", fraction=0.05, pad=0.01, ticks=[1, 10, 25, 50, 100])
    axes.set(title="Values of the mask, all channels", ylim=(-HISTOGRAM_STEP / 2, 1.5 + HISTOGRAM_STEP / 2))


def _has_operators(history: pd.DataFrame) -> bool:
    """Return whether operators were watched: not in runs without any, nor in records from before they were."""
    return bool(history["operator_distance"].notna().any())


def _operators(axes: Axes, history: pd.DataFrame) -> None:
    _line(axes, history, "operator_distance", "‖D − I‖, mean", BLUE)
    _line(axes, history, "down_moved", "L0 from its start", VERMILION, "--")
    _line(axes, history, "up_moved", "L1 from its start", GREEN, ":")
    axes.set(title="Operators", ylim=(0, None))
    axes.legend(loc="best")


def _gradients(axes: Axes, history: pd.DataFrame) -> None:
    """Draw both on one logarithmic scale: an identity loss far above the data pins the operators. Zeros have no place on it."""
    for column, label, color, style in (
        ("instruct_gradient", "of the data's loss", BLUE, "-"), ("identity_gradient", "of the identity loss", VERMILION, "--"),
    ):  # fmt: skip
        _line(axes, history.assign(**{column: history[column].where(history[column] > 0)}), column, label, color, style)
    axes.set_yscale("log")
    axes.set(title="Gradients on the operators")
    axes.legend(loc="best")


def _rate(axes: Axes, history: pd.DataFrame) -> None:
    _line(axes, history, "learning_rate", "learning rate", BLUE)
    axes.set(title="Learning rate (LoRA and operators)", ylim=(0, None))
    axes.yaxis.set_major_formatter("{x:g}")


def _line(axes: Axes, history: pd.DataFrame, column: str, label: str, color: str, style: str = "-") -> None:
    marker = "." if len(history) < SPARSE else None
    axes.plot(history["step"], history[column], color=color, linestyle=style, label=label, marker=marker)


def write_health(tuning: Path, title: str, out: Path) -> str:
    """Write health.csv, health.png and health.pdf into `out`; returns the verdict. Raises UserError on a broken tuning.json."""
    record, history = read_run(tuning)
    masked = bool(history["kept"].notna().any())
    height = 2.6 if not masked else 6.4 + 2.0 * bool(_bins(history)) + 2.0 * _has_operators(history)
    with figure(7.0, height) as drawing:
        draw(record, history, drawing, title)
        save(drawing, out, "health")
    write_text(out / "health.csv", csv_text(history))
    chosen = choice(record["health"])
    return verdict(record["health"], record["width"]) + (f"; {chosen}" if chosen else "") + _said_of_operators(history)


def _said_of_operators(history: pd.DataFrame) -> str:
    distances = history["operator_distance"].dropna()
    return "" if distances.empty else f"; operators at the end ‖D − I‖ {distances.iloc[-1]:.2f}"
