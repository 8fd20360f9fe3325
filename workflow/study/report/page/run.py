"""A finished run as the page reads it: an experiment's results folder, or a kept reference, whose records are unpacked for it.

Owns where the records of each lie. Interprets none of them.
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

from pat.errors import UserError
from pat.io.artefacts import read_record
from study.experiment.table_settings import TableSettings
from study.plan.paths import before_the_cut
from study.results.archive import ARCHIVE, unpack
from study.results.cells import Cell, metrics_of, read_cells
from study.results.explain import Step, steps
from study.results.grid import Grid
from study.results.kept import RESULT
from study.results.options import behind_tables
from study.results.unfinished import unfinished

ACCURACY_TABLES = ("table1", "table3")
COMPARED_TABLES = ("comparisons", "perplexity_comparisons")
TUNING = "adapter/tuning.json"


@dataclass(frozen=True)
class Run:
    """The cells of a run, and the folders in which their steps have left records."""

    results: Path
    cells: Sequence[Cell]
    checkpoints: Path
    of_cells: int | None = None
    """How many cells the experiment has, where these may be fewer."""
    asked: TableSettings | None = None
    """Which tables the experiment asks for, where its file is known."""

    @property
    def name(self) -> str:
        """The experiment's name."""
        return self.cells[0].experiment

    @property
    def unfinished(self) -> bool:
        """Whether the experiment has more cells."""
        return unfinished(len(self.cells), self.of_cells) != ""

    @property
    def counted(self) -> str:
        """How many cells it has, in words."""
        all_of_them = "1 cell" if len(self.cells) == 1 else f"{len(self.cells)} cells"
        return unfinished(len(self.cells), self.of_cells) or all_of_them

    @cached_property
    def grids(self) -> Mapping[str, Grid]:
        """The cells under each metric that they have, the headline first."""
        return {metric: Grid(self.cells, metric) for metric in metrics_of(self.cells)}

    @cached_property
    def grid(self) -> Grid:
        """The cells under the headline metric, or under none where nothing was scored."""
        return next(iter(self.grids.values()), Grid(self.cells, ""))

    @cached_property
    def table_settings(self) -> TableSettings:
        """Which tables the experiment asks for; where its file is not known, as those that it wrote tell."""
        if self.asked is not None:
            return self.asked
        tables = self.results / "tables"
        accuracy = next((name for name in ACCURACY_TABLES if (tables / f"{name}.csv").is_file()), ACCURACY_TABLES[0])
        references = (line["reference"] for name in COMPARED_TABLES for line in _lines(tables / f"{name}.csv"))
        factors = {factor for cell in self.cells for factor in cell.factors}
        headed = {path.stem.removeprefix("ablation_"): _heading(path) for path in sorted(tables.glob("ablation_*.csv"))}
        named = {name: tuple(title for title in heading if title in factors) for name, heading in headed.items()}
        ablations = {name: found for name, found in named.items() if found and not name.endswith(tuple(f"_{it}" for it in self.grids))}
        return TableSettings.model_validate({"reference": next(references, None), "accuracy": accuracy, "ablations": ablations})

    def history(self, cell: Cell) -> Sequence[Mapping[str, Any]]:
        """Return what a cell's own tuning logged; nothing where it has none, or its record was not kept.

        Of a tuning in two parts it is both, the second's steps counted on from the first's.
        """
        own = self._logged(PurePath(place(cell)))
        if cell.tuning_before is None:
            return own
        steps = cell.tuning_before["steps"]
        earlier = self._logged(before_the_cut(PurePath(place(cell))))
        return [*earlier, *({**entry, "step": entry["step"] + steps} for entry in own)]

    def _logged(self, folder: PurePath) -> Sequence[Mapping[str, Any]]:
        record = self.checkpoints / folder / TUNING
        return read_record(record).get("history") or [] if record.is_file() else []

    def steps(self, cell: Cell) -> Sequence[Step]:
        """Return the steps that made a cell, from the first."""
        return steps(cell.path, cell.model_dump(include={"experiment", "provenance"}))


def place(cell: Cell) -> str:
    """Return what a cell is called in every folder of a run: model/row/ratio/seed."""
    return f"{cell.model}/{cell.method}/{cell.ratio_requested:g}/seed{cell.seed}"


@contextmanager
def opened(results: Path) -> Iterator[Run]:
    """Yield the run of a folder. Raises UserError where that is neither an experiment's results nor a reference."""
    if not (results / ARCHIVE).is_file():
        if not results.is_dir():
            raise UserError(f"{results}: no such folder; name results/<experiment> of a finished one, or a kept reference")
        if not (results / "tables").is_dir():
            raise UserError(
                f"{results}: holds no tables and no {ARCHIVE}; name results/<experiment> of a finished one, or a kept reference"
            )
        yield Run(results, read_cells(behind_tables(results)), results / "checkpoints")
        return
    with tempfile.TemporaryDirectory() as folder:
        files = unpack(results / ARCHIVE, Path(folder))
        cells = read_cells(path for path in files if path.name == RESULT)
        yield Run(results, cells, Path(folder) / "checkpoints", of_cells=_of_cells(results / "origin.json"))


def _of_cells(origin: Path) -> int | None:
    """Return how many cells a reference's experiment has, where it was kept unfinished."""
    found = read_record(origin).get("of_cells") if origin.is_file() else None
    return found if isinstance(found, int) else None


def _lines(table: Path) -> list[dict[str, str]]:
    if not table.is_file():
        return []
    with table.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _heading(table: Path) -> list[str]:
    with table.open(encoding="utf-8", newline="") as stream:
        return next(csv.reader(stream), [])
