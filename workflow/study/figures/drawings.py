"""The figures of an experiment: what each is a function of, and which module draws it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from pat.errors import UserError
from study.experiment.figures import FIGURES, Source


@dataclass(frozen=True)
class Drawing:
    """A figure: the function that writes it, what of the command line that is given, in this order before the folder, and what it says.

    The function lies in the module of the figure's name, and is imported when the figure is drawn.
    """

    function: str
    reads: tuple[Source, ...]
    says: str


SAID: dict[str, tuple[str, str]] = {
    "accuracy": ("write_figures", "{out}: accuracy ({said})"),
    "methods": ("write_methods", "{out}: methods ({said})"),
    "perplexity": ("write_perplexity", "{out}: perplexity ({said} points)"),
    "trainable": ("write_trainable", "{out}: trainable ({said})"),
    "trainable_perplexity": ("write_trainable_perplexity", "{out}: trainable_perplexity ({said} points)"),
    "memory": ("write_memory", "{out}: memory ({said})"),
    "speedup": ("write_speedup", "{out}: speedup of {said} shape(s)"),
    "gate": ("write_gate", "{out}: gate"),
    "health": ("write_health", "{title}: {said}"),
}
DRAWINGS: dict[str, Drawing] = {
    **{name: Drawing(function, FIGURES[name].reads, says) for name, (function, says) in SAID.items()},
    "exports": Drawing("write_exports", ("benchmark",), "{out}: exports ({said} points)"),  # of `pat benchmark export`, of no experiment
}
NEEDED = {"health": "tuning", "speedup": "benchmark", "exports": "benchmark"}
"""What a figure cannot do without; that cells are needed is said by what reads them."""


def draw(name: str, given: Mapping[str, Any], out: Path, *, of_cells: int | None = None) -> str:
    """Write a figure into `out` and return the line that is said of it. Where the experiment has more cells, `of_cells`, a figure of them
    says so. Raises UserError on files that it does not read, or lacks.
    """
    drawing = DRAWINGS[name]
    for option, value in given.items():
        if value and option not in drawing.reads:
            raise UserError(f"figure {name}: reads no --{option}; leave it out")
    if name in NEEDED and not given[NEEDED[name]]:
        raise UserError(f"figure {name}: --{NEEDED[name]} is needed")
    write = getattr(import_module(f"study.figures.{name}"), drawing.function)
    count = {"of_cells": of_cells} if "cells" in drawing.reads else {}
    said = write(*(given[option] for option in drawing.reads), out, **count)
    return drawing.says.format(out=out, said=said, title=given.get("title", ""))
