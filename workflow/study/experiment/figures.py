"""The figures that an experiment may ask for: what each is drawn from, and what the experiment must have for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Figure = Literal["accuracy", "methods", "perplexity", "trainable", "trainable_perplexity", "memory", "speedup", "gate", "health"]
Source = Literal["cells", "benchmark", "tuning", "title", "accuracy"]
Need = Literal["tasks", "texts", "masks", "inference"]


@dataclass(frozen=True)
class FigureKind:
    """A figure: what it reads, in the order of its function's arguments; what an experiment must have; whether it is drawn unasked."""

    reads: tuple[Source, ...]
    needs: Need | None = None
    unasked: bool = True


FIGURES: dict[str, FigureKind] = {
    "accuracy": FigureKind(("cells",), "tasks"),
    "methods": FigureKind(("cells", "accuracy"), "tasks"),
    "perplexity": FigureKind(("cells",), "texts"),
    "trainable": FigureKind(("cells", "accuracy"), "tasks"),
    "trainable_perplexity": FigureKind(("cells",), "texts", unasked=False),  # tells something where rows of a method differ in size alone
    "memory": FigureKind(("cells", "benchmark"), "tasks"),
    "speedup": FigureKind(("benchmark",), "inference"),
    "gate": FigureKind((), "masks"),
    "health": FigureKind(("tuning", "title"), "masks"),
}
