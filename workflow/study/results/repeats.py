"""Makes cells again, several times, by the commands that their records hold, and writes how far the repetitions lie apart.

On a CPU the same command gives the same bytes; on a GPU sums are taken in an order that changes from run to run. What that is worth in
the figures of a table is measured here: nothing else differs between the repetitions. All steps of a cell's own are made again, from the
base on: a pruning before the tuning, or between two parts of it, too.
"""

from __future__ import annotations

import shlex
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Annotated, Any

import typer
from torch import Tensor

from pat.benchmark.machine import description
from pat.errors import UserError
from pat.io.artefacts import read_record, sha256, write_json
from pat.io.places import READS, WRITES
from pat.io.progress import Progress
from pat.io.provenance import provenance
from pat.io.tensors import read_tensors
from pat.machine.device import resolve_device
from pat.method.adapter_folder import ADAPTER_WEIGHTS_NAME
from pat.method.sparsifier import HSM_WEIGHTS_NAME
from study.commands.errors import run_reporting_errors
from study.commands.places import REPEATS, guarded
from study.results.collect import EARLIER

SCHEMA = 1
STEPS = (f"{EARLIER}tune", f"{EARLIER}merge", "prune", "tune", "merge", "evaluate")
"""In their order; a cell has the last three at least."""
NEEDED = STEPS[-3:]
INPUTS = ("--base", "--adapter", "--model")
"""Options that name what an earlier step may have made."""
ADAPTER_FILES = (ADAPTER_WEIGHTS_NAME, HSM_WEIGHTS_NAME)


@dataclass(frozen=True)
class Repetition:
    """A cell made once more: its figures, its last adapter with the checksums of its files, and the steps that were made again."""

    figures: dict[str, float]
    adapter: dict[str, Tensor]
    checksums: tuple[str, ...]
    steps: tuple[str, ...]


def summary(cell: Path, repetitions: Sequence[Repetition]) -> dict[str, Any]:
    """Return what one cell's figures are in its repetitions, and how far these lie apart."""
    record = read_record(cell)
    first = repetitions[0]
    return {
        **{key: record[key] for key in ("experiment", "model", "method", "label", "ratio_requested", "seed")},
        "steps": list(first.steps),
        "same_bytes": len({it.checksums for it in repetitions}) == 1,
        "largest_weight_difference": max(_largest_difference(it.adapter, first.adapter) for it in repetitions),
        "figures": {name: spread([it.figures[name] for it in repetitions]) for name in first.figures if _in_all(name, repetitions)},
    }


def _in_all(name: str, repetitions: Sequence[Repetition]) -> bool:
    return all(name in it.figures for it in repetitions)


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Return mean, standard deviation and range of the repetitions, and the values themselves."""
    return {"mean": fmean(values), "sd": stdev(values), "range": max(values) - min(values), "values": list(values)}


def commands_of(cell: Path) -> dict[str, str]:
    """Return the commands that made a cell, by step, in their order.

    Raises UserError where one is not recorded, or where a cell's merged model is pruned before it is evaluated.
    """
    origin = read_record(cell).get("provenance") or {}
    commands = {step: str((origin.get(step) or {}).get("command") or "") for step in STEPS if step in origin or step in NEEDED}
    if missing := [step for step, command in commands.items() if not command]:
        raise UserError(f"{cell}: the command of {', '.join(missing)} is not recorded")
    if _value(commands["merge"], "--out") != _value(commands["evaluate"], "--model"):
        raise UserError(f"{cell}: its merged model is pruned before it is evaluated; only a cell that ends with the merge can be repeated")
    return commands


def _value(command: str, option: str) -> str | None:
    words = shlex.split(command)
    return words[words.index(option) + 1] if option in words else None


def repeat(commands: Mapping[str, str], folder: Path) -> Repetition:
    """Make a cell once more in `folder`, each step from what the repeated ones before it have made. Raises UserError where one fails."""
    made: dict[str, Path] = {}
    for step, command in commands.items():
        own = folder / step
        own.mkdir(parents=True)
        given = {option: made[value] for option in INPUTS if (value := _value(command, option)) in made}
        _call(command, given | {"--run-dir": own / "run", "--out": own / "out", "--log": own / "log"})
        made[_value(command, "--out") or ""] = own / "out"
    adapter, scores = folder / "tune" / "out", folder / "evaluate" / "out"
    files = [adapter / name for name in ADAPTER_FILES if (adapter / name).is_file()]
    tensors = {f"{file.name}:{name}": tensor for file in files for name, tensor in read_tensors(file).items()}
    return Repetition(_figures(adapter, scores), tensors, tuple(map(sha256, files)), tuple(commands))


def _call(command: str, places: Mapping[str, Path]) -> None:
    """Run a recorded command with other places. Raises UserError where it fails, with what it said last."""
    words = shlex.split(command)
    for option, place in places.items():
        if option in words:
            words[words.index(option) + 1] = str(place)
    finished = subprocess.run(words, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise UserError(f"{shlex.join(words)}: failed: {(finished.stderr or finished.stdout).strip()[-500:]}")


def _figures(adapter: Path, scores: Path) -> dict[str, float]:
    """Return what is a number: a tuning that ends before its first entry of the log has no loss, a perplexity may be too large for one."""
    evaluation = read_record(scores)
    found = {
        "train_loss": read_record(adapter / "tuning.json")["train_loss"],
        **{f"perplexity of {name}": it["token_perplexity"] for name, it in evaluation["perplexity"].items()},
        **{f"mean {metric}": value for metric, value in evaluation["mean"].items()},
    }
    return {name: float(value) for name, value in found.items() if value is not None}


def _largest_difference(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> float:
    return max(float((ours[name].float() - theirs[name].float()).abs().max()) for name in theirs)


@guarded(REPEATS)
def main(
    cells: Annotated[list[Path], typer.Option("--cell", help="a cell.json; may be given several times"), READS],
    out: Annotated[Path, typer.Option(help="the JSON to write"), WRITES],
    times: Annotated[int, typer.Option(min=2, help="how often each cell is made")] = 3,
    jobs: Annotated[int, typer.Option(min=1, help="how many are made at a time")] = 1,
) -> None:
    """Repeat the cells, in the folder where their experiment ran, and write the spread of each to `out`."""
    run_reporting_errors(lambda: spreads(cells, out, times, jobs))


def spreads(cells: Sequence[Path], out: Path, times: int, jobs: int) -> str:
    """Write the record and return a line that says where it is. Raises UserError as `commands_of` and `repeat` do."""
    commands = [commands_of(cell) for cell in cells]
    progress = Progress("repeats", times * len(cells))
    repetitions: list[Repetition] = []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        places = [Path(folder) / str(number) for number in range(times * len(cells))]
        for repetition in pool.map(repeat, [it for it in commands for _ in range(times)], places):
            repetitions.append(repetition)
            progress.update(len(repetitions))
    progress.finish()
    found = [summary(cell, repetitions[times * number : times * (number + 1)]) for number, cell in enumerate(cells)]
    device = resolve_device("auto")
    record = {"schema": SCHEMA, "kind": "repeats", "times": times, "jobs": jobs, "machine": description(device), "cells": found}
    write_json(out, record | {"provenance": provenance({"times": times}, 0, device, dict(zip(map(str, cells), cells, strict=True)))})
    return f"{out}: {len(cells)} cells, each made {times} times"
