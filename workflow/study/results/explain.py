"""`study explain`: from a number in a table to the files and commands that made it, as the steps themselves have recorded them.

Reads records alone: each names its inputs, and the folder of an input holds the record of the step before, or is that record. They are
looked up where the cell's own results lie, and followed where what is there has the checksums that were recorded. Where that is another
by now, and of a kept reference, the cell alone is asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os.path import normpath
from pathlib import Path
from typing import Annotated, Any

import typer

from pat.checkpoints.origin import ORIGIN_NAME
from pat.errors import UserError
from pat.io.artefacts import read_record, sha256
from pat.io.marks import FOLDER_RECORDS
from pat.io.provenance import checksums
from study.commands.errors import run_reporting_errors
from study.experiment.methods import name_of_row
from study.plan.paths import Paths
from study.results.archive import ARCHIVE, packed
from study.results.kept import RESULT
from study.results.options import CELL_STEPS

EVALUATION, RATE = "evaluation.json", "rate.json"
RECORDS = {ORIGIN_NAME: "import-model"} | FOLDER_RECORDS
"""What each step writes into the folder that it makes, and the verb that makes it; the first travels into those of later steps."""
PHASES = ("sizes", "rotation", "readers", "before/tune", "before/merge", "prune", "tune", "merge", "evaluate")
"""Keys of a cell's provenance, for cells that recorded no inputs by which to follow their steps."""
SHOWN_DIGITS = 12
NOT_RECORDED = "not recorded"


@dataclass(frozen=True)
class Step:
    """One step of the chain: its verb, the record it has left, and the provenance in that."""

    verb: str
    record: Path
    provenance: Mapping[str, Any]


def explain(results: Path, wanted: Mapping[str, object], task: str | None) -> list[str]:
    """Return the lines that lead from a cell's numbers to all that made them.

    `wanted` says which cell: model, method, ratio_requested, seed; None stands for any. Raises UserError unless exactly one cell
    below `results` fits, and where it has no such task.
    """
    path, cell = _one_cell(results, wanted)
    lines = [_name(cell), *_budget(cell), *_numbers(cell, task), _place(path)]
    for number, step in enumerate(steps(path, cell), start=1):
        lines += ["", f"{number}. {step.verb}: {_holder(step.record)}", *origin_lines(step.provenance)]
    return lines


def _place(path: Path) -> str:
    holder = _holder(path)
    within = f", record {path.relative_to(holder)}" if holder != path else ""
    return f"cell: {holder}{within} (sha256 {sha256(holder)[:SHOWN_DIGITS]})"


def _one_cell(results: Path, wanted: Mapping[str, object]) -> tuple[Path, Mapping[str, Any]]:
    cells = _cells(results)
    if not cells:
        raise UserError(f"{results}: holds no {RESULT}; is it the results folder of an experiment that has run?")
    fitting = {path: cell for path, cell in cells.items() if all(it is None or cell.get(key) == it for key, it in wanted.items())}
    if len(fitting) == 1:
        return next(iter(fitting.items()))
    listed = "\n".join(f"  {_options(cell)}" for cell in (fitting or cells).values())
    problem = f"{len(fitting)} cells fit; say which" if fitting else "no cell fits; there are"
    raise UserError(f"{results}: {problem}:\n{listed}")


def _cells(results: Path) -> dict[Path, Mapping[str, Any]]:
    """Return the results of all cells below a folder: files of their own, or in the archive of a kept reference."""
    found: dict[Path, Mapping[str, Any]] = {path: read_record(path) for path in sorted(results.rglob(RESULT))}
    for archive in sorted(results.rglob(ARCHIVE)):
        found |= {archive / name: record for name, record in packed(archive) if Path(name).name == RESULT}
    return found


def _holder(path: Path) -> Path:
    """Return the file that holds a record: its own, or the archive that it is in."""
    return next((parent for parent in path.parents if parent.is_file()), path)


def _options(cell: Mapping[str, Any]) -> str:
    model, row, ratio, seed = (cell.get(key) for key in ("model", "method", "ratio_requested", "seed"))
    return f"--model {model} --row {row} --ratio {ratio} --seed {seed}"


def _name(cell: Mapping[str, Any]) -> str:
    row = name_of_row(str(cell.get("label")), cell.get("mode") or "")
    return f"{cell.get('experiment')}: {cell.get('model')}, {row}, ratio {cell.get('ratio_requested')}, seed {cell.get('seed')}"


def _budget(cell: Mapping[str, Any]) -> list[str]:
    """Return in a line the budget that the cell's ratio stands for; nothing where it is a plain ratio."""
    budget = dict(cell.get("budget") or {})
    asked = budget.pop("ratio_asked", None)
    said = ", ".join(f"{name} {value:g}" for name, value in budget.items())
    return [f"  budget {said}: stands at {cell.get('ratio_requested')}, its steps were asked for {asked}"] if budget else []


def _numbers(cell: Mapping[str, Any], task: str | None) -> Iterator[str]:
    """Yield the cell's numbers: of one task, or of all with the perplexities."""
    tasks = cell.get("tasks") or {}
    if task is not None and task not in tasks:
        raise UserError(f"--task {task}: the cell was not scored on it; its tasks are {', '.join(sorted(tasks)) or 'none'}")
    for name in sorted(tasks) if task is None else [task]:
        scores = ", ".join(f"{metric} {score['value']:.2%}" for metric, score in sorted(tasks[name]["scores"].items()))
        yield f"  {name}: {scores} ({tasks[name]['items']} items)"
    for name, value in sorted(cell.get("perplexity", {}).items()) if task is None else ():
        yield f"  {name}: perplexity {value['token_perplexity']} per token, {value['byte_perplexity']} per byte"


def steps(path: Path, cell: Mapping[str, Any]) -> list[Step]:
    """Return the steps from the first to the evaluation; as the cell alone knows them where their folders are gone, or others by now."""
    known, scored = cell.get("provenance") or {}, path.with_name(EVALUATION)
    if scored.is_file():
        followed = list(_chain(Step("evaluate", scored, known.get("evaluate") or {}), _Run.of(path, cell), set()))
        found = [step for step in followed if step is not None]
        if len(followed) == len(found) > 1:
            return found
    return [Step(phase, path, known[phase]) for phase in PHASES if known.get(phase)]


@dataclass(frozen=True)
class _Run:
    """Where the results of a cell's run lie, and what the run itself called them."""

    results: Path
    called: str

    @classmethod
    def of(cls, path: Path, cell: Mapping[str, Any]) -> _Run:
        """Return it for the cell at a path, whose place below the results is known."""
        up = [".."] * CELL_STEPS
        return cls(Path(normpath(path.joinpath(*up))), Paths(str(cell.get("experiment"))).results)

    def find(self, recorded: str) -> Path:
        """Return where an input lies now; the run called it from the folder in which its results lay."""
        path = Path(recorded)
        if path.is_relative_to(self.called):
            return self.results / path.relative_to(self.called)
        return Path(normpath(self.results / ".." / ".." / path))


def _chain(step: Step, run: _Run, seen: set[Path]) -> Iterator[Step | None]:
    """Yield what made the inputs of a step, each once, and then the step; None stands for an input that is another by now."""
    for given in (step.provenance.get("inputs") or {}).values():
        folder = run.find(given["path"])
        made = _maker(folder)
        if made is None or made.record in seen:
            continue
        seen.add(made.record)
        if _is_the_one(folder, given["sha256"]):
            yield from _chain(made, run, seen)
        else:
            yield None
    yield step


def _is_the_one(path: Path, sums: object) -> bool:
    """Return whether a file or folder has these checksums; one whose weights are gone, since no job needs them any more, has none."""
    found = checksums(path)
    return not found or found == sums


def _maker(folder: Path) -> Step | None:
    """Return the step that made a folder, or the record of a search; None for another file, or a folder that was made elsewhere."""
    if folder.name == RATE and folder.is_file():
        return Step("search-rate", folder, read_record(folder).get("provenance") or {})
    there = [name for name in RECORDS if (folder / name).is_file()]
    if not there:
        return None
    record = folder / there[-1]
    return Step(RECORDS[there[-1]], record, read_record(record).get("provenance") or {})


def origin_lines(provenance: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a step's provenance says, a line per fact."""
    yield f"   config hash {provenance.get('config_hash')}, seed {provenance.get('seed')}, device {provenance.get('device')}"
    yield f"   {_code(provenance)}"
    versions = ", ".join(f"{name} {version}" for name, version in sorted((provenance.get("versions") or {}).items()))
    yield f"   Python {provenance.get('python')}, {versions}"
    for name, given in (provenance.get("inputs") or {}).items():
        yield f"   {name}: {given['path']} ({_sums(given['sha256'])})"
    yield f"   command: {provenance.get('command') or NOT_RECORDED}"


def _code(provenance: Mapping[str, Any]) -> str:
    """Return what is known of the code that ran: its commit, or, where git does not track it, the checksum of its sources."""
    dirty, commit, sources = (provenance.get(key) for key in ("git_dirty", "git_commit", "source_hash"))
    if commit is None and sources is not None:
        return (
            f"sources {sources}, " + {True: "changed since they were installed", False: "as installed", None: "outside a checkout"}[dirty]
        )
    state = {True: "with uncommitted changes", False: "unchanged", None: "outside a checkout"}[dirty]
    return f"commit {commit}, {state}" + (f", sources {sources}" if sources else "")


def _sums(sums: str | Mapping[str, str]) -> str:
    if isinstance(sums, str):
        return f"sha256 {sums[:SHOWN_DIGITS]}"
    return ", ".join(f"{name} {each[:SHOWN_DIGITS]}" for name, each in sorted(sums.items()))


def main(
    results: Annotated[Path, typer.Argument(help="results folder of an experiment, or of a kept reference")],
    model: Annotated[str | None, typer.Option(help="the model's name in the experiment")] = None,
    row: Annotated[str | None, typer.Option(help="the row's name in the experiment's methods")] = None,
    ratio: Annotated[float | None, typer.Option(help="the ratio asked for")] = None,
    seed: Annotated[int | None, typer.Option(help="one of the experiment's seeds")] = None,
    task: Annotated[str | None, typer.Option(help="one task alone; all by default")] = None,
) -> None:
    """Lead from a cell of the tables to its files, inputs, code versions and the commands that made it."""
    wanted = {"model": model, "method": row, "ratio_requested": ratio, "seed": seed}
    run_reporting_errors(lambda: "\n".join(explain(results, wanted, task)))
