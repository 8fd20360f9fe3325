"""What a reference keeps of a run: all of a finished one, or of one that is not the cells that are there by their records."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath

from pat.errors import UserError
from pat.io.marks import FOLDER_RECORDS
from study.experiment.file import load_experiment
from study.figures.drawings import DRAWINGS, draw
from study.results.archive import ARCHIVE, packed
from study.results.explain import RATE
from study.results.kept import RESULT, check_results, kept_as
from study.results.on_record import on_record
from study.results.options import TABLE_OF_CELLS, behind_tables
from study.results.times import FOLDER as MEASURED
from study.results.times import OF_ARMS, PLACE_STEPS, JobTime, read_times
from study.tables.writing import write_tables

SCORING = "evaluate"
"""The step that each cell has of its own."""
STEPS = FOLDER_RECORDS | {RATE: OF_ARMS}
"""Of which step a record is by its name, whose time is measured at the same place."""
PICTURES, BENCHMARKS = "figures/*.png", "benchmark/*/*.json"
"""What a run and its reference have beside cells and tables."""
TIMES = PurePath("tables", "times.csv")
"""Where a reference has how long the jobs took."""


class Finished:
    """A run whose tables and figures are made."""

    of_cells: int | None = None
    """How many cells the experiment has, where these are fewer."""
    parts: Sequence[Path] = ()
    """Records that the cells cannot do without, beside those in their own places."""

    def __init__(self, results: Path) -> None:
        """Raise UserError where the folder or its tables are missing."""
        check_results(results)
        if not (results / TABLE_OF_CELLS).is_file():
            raise UserError(f"{results}: holds no {TABLE_OF_CELLS}; run the experiment first, or keep what is there by --unfinished")
        self.results = results
        self.cells: Sequence[Path] = behind_tables(results)

    def jobs(self) -> list[JobTime]:
        """Return what was measured of the jobs behind the cells, in the order in which they began; nothing where that is not there."""
        return read_times(self.results) if (self.results / MEASURED).is_dir() else []

    def unmeasured(self) -> dict[str, int]:
        """Return how many jobs of each step took an unknown time: none, since a finished run has measured its jobs."""
        return {}

    @contextmanager
    def tables(self) -> Iterator[Path]:
        """Yield the folder of the tables."""
        yield self.results / "tables"

    @contextmanager
    def figures(self) -> Iterator[list[Path]]:
        """Yield the figures that lie there as pictures."""
        yield sorted(self.results.glob(PICTURES))

    def benchmarks(self) -> list[Path]:
        """Return the records of benchmarks that lie there."""
        return sorted(self.results.glob(BENCHMARKS))


class Unfinished(Finished):
    """The cells of a run that are there by their records, with tables and figures of them."""

    def __init__(self, results: Path, config: Path) -> None:
        """Raise UserError where the experiment's file is wrong, no cell is there, or one is not what the file asks for (`on_record`)."""
        self.results = results
        self.experiment = load_experiment(config, str(config))
        found = on_record(self.experiment, results, str(config))
        self.cells = [each.path for each in found]
        self.parts = list(dict.fromkeys(part for each in found for part in each.parts))
        count = len(self.experiment.cells())
        self.of_cells = count if count != len(found) else None

    def jobs(self) -> list[JobTime]:
        """Return the same, of these cells alone; nothing where those of some were left behind, so that a part does not pass for all."""
        if not all(self._is_measured(SCORING, self._place(cell)) for cell in self.cells):
            return []
        made_from = (self._place(part) for part in self.parts if part.name != RATE)
        return read_times(self.results, {*map(self._place, self.cells), *made_from})

    def unmeasured(self) -> dict[str, int]:
        """Return how many jobs of each step took an unknown time, since what was measured of them was left behind."""
        made = [(STEPS[part.name], self._place(part).parent if part.name == RATE else self._place(part)) for part in self.parts]
        return dict(Counter(step for step, place in made if not self._is_measured(step, place)))

    def _is_measured(self, step: str, place: PurePath) -> bool:
        return (self.results / MEASURED / step / f"{place}.tsv").is_file()

    def _place(self, record: Path) -> PurePath:
        """Return model/row/ratio/seed of a record of a cell."""
        return PurePath(*record.relative_to(self.results).parts[1:][:PLACE_STEPS])

    @contextmanager
    def tables(self) -> Iterator[Path]:
        """Yield a folder of their tables, each of which says of how many cells it is, for as long as it is read."""
        with tempfile.TemporaryDirectory() as folder:
            tables = Path(folder) / "tables"
            write_tables(self.cells, tables, self.experiment.tables, of_cells=self.of_cells)
            yield tables

    @contextmanager
    def figures(self) -> Iterator[list[Path]]:
        """Yield pictures of these cells, each of which says of how many it is, for as long as they are read."""
        given = {"cells": self.cells, "benchmark": self._inference(), "accuracy": self.experiment.tables.accuracy}
        with tempfile.TemporaryDirectory() as folder:
            for name in self._drawn():
                draw(name, {option: given[option] for option in DRAWINGS[name].reads}, Path(folder), of_cells=self.of_cells)
            yield sorted(Path(folder).glob("*.png"))

    def _inference(self) -> list[Path]:
        return [path for path in self.benchmarks() if path.parent.name == "inference"]

    def _drawn(self) -> list[str]:
        """Return the figures that there is data for. A run's health is none of them: many pictures, and its record holds their data."""
        without = {"health"} if self._inference() else {"health", "speedup"}
        return [name for name in self.experiment.drawn() if name not in without]

    def check_none_lost(self, reference: Path) -> None:
        """Raise UserError where a reference that is there has what is not here: cells, times, figures, benchmarks."""
        if not (reference / ARCHIVE).is_file():
            return
        ours = {kept_as(path.relative_to(self.results)) for path in self.cells}
        kept = [name for name, _ in packed(reference / ARCHIVE) if PurePath(name).name == RESULT]
        lost = [PurePath(*PurePath(name).parent.parts[1:]) for name in kept if name not in ours]
        if lost:
            count = "a cell" if len(lost) == 1 else f"{len(lost)} cells"
            raise UserError(
                f"{reference}: has {count} that {self.results} does not have, such as {lost[0]}; bring them there by "
                f"study unpack {reference} --out {self.results}, or give --force to keep the others alone"
            )
        if (reference / TIMES).is_file() and not self.jobs():
            raise UserError(
                f"{reference}: says how long its jobs took, and {self.results}/{MEASURED} does not for all cells; bring it there, or give "
                "--force to keep the rest alone"
            )
        here = {PurePath("figures", f"{name}.png") for name in self._drawn()} | {
            path.relative_to(self.results) for path in self.benchmarks()
        }
        beyond = [path.relative_to(reference) for pattern in (PICTURES, BENCHMARKS) for path in sorted(reference.glob(pattern))]
        if left_out := [path for path in beyond if path not in here]:
            raise UserError(
                f"{reference}: has {left_out[0]}, which would not be kept: leave --unfinished out where the run is finished, or give "
                "--force to keep its cells and tables alone"
            )
