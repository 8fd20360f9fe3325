"""Which models of some cells are quantised, as tables and figures say: their weights are what formats of a GGUF file left of others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pat.checkpoints.origin import quantised_as
from study.results.cells import Cell


def quantised_models(cells: Iterable[Cell]) -> dict[str, str]:
    """Return the formats that the weights of each quantised model had been quantised to, such as "Q4_1 and Q8_0", by the model's name."""
    return quantised_origins({cell.model: cell.origin for cell in cells if cell.origin})  # a checkpoint made elsewhere may tell none


def quantised_origins(origins: Mapping[str, Mapping[str, Any] | None]) -> dict[str, str]:
    """Return the same of models by what they were read from."""
    formats = {model: quantised_as(origin) for model, origin in origins.items()}
    return {model: found for model, found in formats.items() if found}


def quantised_lines(formats: Mapping[str, str]) -> list[str]:
    """Return a line for each quantised model, as short as what stands above a figure has to be."""
    return [f"{model} is quantised ({found})" for model, found in formats.items()]


def quantised_notes(formats: Mapping[str, str]) -> list[str]:
    """Return a sentence for each quantised model, as it stands below a table."""
    return [
        f"{model}: quantised. It was read from a GGUF file; its weights are the values that {found} left of the original's."
        for model, found in formats.items()
    ]
