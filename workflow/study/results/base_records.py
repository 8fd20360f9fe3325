"""The records of how the bases that rows tune were made ready, rotated or their readers refitted, as the tables see them.

A cell names these steps by their settings (`rotation` and `readers` of its provenance); their records lie in the same results as the cell.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, ValidationError

from pat.checkpoints.basis_record import ROTATION_RECORD
from pat.checkpoints.readers_record import READERS_RECORD
from pat.errors import UserError
from pat.io.artefacts import read_record
from study.results.benchmarks import Part
from study.results.cells import Cell
from study.results.options import CELL_STEPS

ROTATED = f"rotated/{{model}}/*/{{seed}}/{ROTATION_RECORD}"
REFITTED = f"refitted/{{model}}/{{basis}}/*/*/{{ratio}}/{{seed}}/{READERS_RECORD}"
"""Where they lie below the results; a cell calls these steps `rotation` and `readers`."""
NATIVE, EVALUATION = "native", "evaluation"
Finite = Annotated[float, Field(allow_inf_nan=False)]


class BaseRecord(Part):
    """What the place of a record says of its base: `basis` is the name in paths, which says where a tie was broken."""

    model: str
    basis: str
    seed: int


Found = TypeVar("Found", bound=BaseRecord)


class Moved(Part):
    """Perplexity of text before a change of basis and after it; their ratio and its standard error over the text's tokens."""

    perplexity_before: Finite
    perplexity_after: Finite
    perplexity_ratio: Finite
    perplexity_ratio_error: Finite
    tokens: int


class Rotation(BaseRecord):
    """A base in another basis; `text` is None where that changes nothing but by rounding, `apart` are the channels left out."""

    tokens: int | None = None
    apart: list[int] = []
    text: Moved | None = None


class Way(Part):
    """One way to fit the readers that was tried: to which stream, at which ridge; the perplexities of held-out and second text with it."""

    seen: str
    ridge: Finite
    perplexity: Finite
    second_text: Finite | None = None


class Cut(Part):
    """Perplexity of a text: of the whole base, and without the channels that go, with plain readers and with those that were written."""

    base: Finite
    plain: Finite
    refitted: Finite = Field(alias="least-squares")
    tokens: int


class Missed(Part):
    """The share of a norm's output that readers miss on some tokens: plain ones, and those that were fitted."""

    plain: Finite
    refitted: Finite = Field(alias="least-squares")


class ReadError(Part):
    """What is missed behind one norm: of massive tokens, where there are any."""

    massive: Missed | None = None


class Input(Part):
    """A file that a base was made from."""

    path: Path


class Inputs(Part):
    """The files that a refit read: the second text, where it had one."""

    second_text: Input | None = None


class Origin(Part):
    """What the tables read of how a refit was made."""

    inputs: Inputs = Inputs()


class Readers(BaseRecord):
    """A base whose readers are fitted to the channels that a mask keeps at a ratio, as paths and tables have it."""

    mask: str
    align: str
    ratio: float
    kept: list[int]
    applied: bool | None = None
    seen: str | None = None
    ridge: Finite | None = None
    tried: list[Way] = []
    text: dict[str, Cut] = {}
    error: dict[str, ReadError] = {}
    tokens: int | None = None
    provenance: Origin = Origin()

    @property
    def second_text(self) -> str | None:
        """What the second text is called among the experiment's; None where there was none."""
        second = self.provenance.inputs.second_text
        return None if second is None else second.path.stem

    @property
    def massive(self) -> Missed | None:
        """The largest shares missed of massive tokens behind any norm; None where there are none."""
        found = [it.massive for it in self.error.values() if it.massive is not None]
        largest = {"plain": max(it.plain for it in found), "least-squares": max(it.refitted for it in found)} if found else None
        return None if largest is None else Missed.model_validate(largest)


def records_of_bases(cell: Path, made_by: Mapping[str, Any]) -> list[Path]:
    """Return the records of the base of a cell's row, of its own seed and ratio: a rotation, a refit, both or none.

    `made_by` is the cell's provenance; of several bases they are those of the settings that it names.
    """
    rotation, readers = (made_by.get(step) for step in ("rotation", "readers"))
    if not (rotation or readers) or len(cell.parents) < CELL_STEPS or cell.parts[-CELL_STEPS] != EVALUATION:
        return []
    results, (model, _row, ratio, seed) = cell.parents[CELL_STEPS - 1], cell.parts[1 - CELL_STEPS : -1]
    rotated = _of_settings(results.glob(ROTATED.format(model=model, seed=seed)), rotation)
    bases = [path.parent.parent.name for path in rotated] if rotation else [NATIVE]
    places = (REFITTED.format(model=model, basis=basis, ratio=ratio, seed=seed) for basis in bases)
    return rotated + _of_settings((path for place in places for path in results.glob(place)), readers)


def read_bases(cells: Iterable[Cell]) -> tuple[list[Rotation], list[Readers]]:
    """Return the records of the bases of the cells' rows, each once, in the order of their places. Raises UserError on one that is none."""
    paths = sorted({path for cell in cells for path in records_of_bases(cell.path, cell.provenance)})
    rotations = [_rotation(path) for path in paths if path.name == ROTATION_RECORD]
    return rotations, [_readers(path) for path in paths if path.name == READERS_RECORD]


def _rotation(path: Path) -> Rotation:
    model, basis, seed = path.parent.parts[-3:]
    return _read(Rotation, path, "rotate", {"model": model, "basis": basis, "seed": seed.removeprefix("seed")})


def _readers(path: Path) -> Readers:
    model, basis, mask, align, ratio, seed = path.parent.parts[-6:]
    place = {"model": model, "basis": basis, "mask": mask, "align": align.removeprefix("align-"), "ratio": ratio}
    return _read(Readers, path, "refit-readers", place | {"seed": seed.removeprefix("seed")})


def _read(form: type[Found], path: Path, verb: str, place: Mapping[str, object]) -> Found:
    try:
        return form.model_validate({**read_record(path), **place})
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, it['loc']))}: {it['msg']}" for it in error.errors())
        raise UserError(f"{path}: is not a record of `pat {verb}` of this version: {problems}") from None


def _of_settings(records: Iterable[Path], step: Mapping[str, Any] | None) -> list[Path]:
    """Return those of some records that were made by the settings of a cell's step; none where the cell has no such step."""
    wanted = (step or {}).get("config_hash")
    return [path for path in sorted(records) if wanted and read_record(path).get("provenance", {}).get("config_hash") == wanted]
