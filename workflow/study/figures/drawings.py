"""The figures of an experiment: what each is a function of, and which module draws it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from pat.errors import UserError


@dataclass(frozen=True)
class Drawing:
    """A figure: the function that writes it, what of the command line that is given, in this order before the folder, and what it says.

    The function lies in the module of the figure's name, and is imported when the figure is drawn.
    """

    function: str
    reads: tuple[str, ...]
    says: str


DRAWINGS: dict[str, Drawing] = {
    "accuracy": Drawing("write_figures", ("cells",), "{out}: accuracy ({said})"),
    "methods": Drawing("write_methods", ("cells",), "{out}: methods ({said})"),
    "perplexity": Drawing("write_perplexity", ("cells",), "{out}: perplexity ({said} points)"),
    "trainable": Drawing("write_trainable", ("cells",), "{out}: trainable ({said})"),
    "memory": Drawing("write_memory", ("cells", "benchmark"), "{out}: memory ({said})"),
    "speedup": Drawing("write_speedup", ("benchmark",), "{out}: speedup of {said} shape(s)"),
    "exports": Drawing("write_exports", ("benchmark",), "{out}: exports ({said} points)"),
    "gate": Drawing("write_gate", (), "{out}: gate"),
    "health": Drawing("write_health", ("tuning", "title"), "{title}: {said}"),
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
