"""Options that several verbs have, each with its one wording and its one role (pat/io/places.py), and what the library takes for them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pat.errors import UserError
from pat.io.places import KEEPS, READS, WRITES
from pat.settings.formats import ALIGN_NAMES
from pat.settings.limits import LARGEST_FACTOR, LARGEST_SEED, MOST_THREADS
from pat.settings.tuners import MASKED, MASKED_NAMES

if TYPE_CHECKING:
    from pat.data.calibration import Calibration

Base = Annotated[Path, typer.Option(help="folder of a stock model, as save_pretrained writes it"), READS]
Out = Annotated[Path, typer.Option(help="what to write; appears in one piece when it is complete"), WRITES]
RunDir = Annotated[Path, typer.Option(help="where checkpoints lie while the job runs; a killed job resumes from there"), KEEPS]
SettingsText = Annotated[str, typer.Option("--settings", help="settings as JSON, or a YAML or JSON file"), READS]
Seed = Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="seeds everything random")]
PruneSettingsText = Annotated[
    str,
    typer.Option(
        "--settings", help="size, basis, tie, writers, protect_first, protect_last, as far as the pruner has them; JSON or a file"
    ),
    READS,
]
Data = Annotated[
    Path,
    typer.Option(help="rows to learn from: chat, instructions, prompts or texts; JSONL, JSON, CSV, Parquet or a saved set"),
    READS,
]
Columns = Annotated[list[str] | None, typer.Option("--column", help="ours=theirs: what a field of --data is called there; may be repeated")]
Ridges = Annotated[
    list[float] | None,
    typer.Option("--ridge", help="a ridge to try, above 0, of which held-out text chooses; may be repeated; left out: 1e-6 and 1e-3"),
]
Encoded = Annotated[Path | None, typer.Option(help="what `pat encode` has written of --data, so that it is not encoded again"), READS]
Datasets = Annotated[
    list[str] | None, typer.Option("--dataset", help="data set of the hub that the rows are from, for the model's card; may be repeated")
]
BudgetParameters = Annotated[
    float | None, typer.Option(help="in place of --ratio: parameters that stay at most; below 1, their share of the base's")
]
BudgetMemory = Annotated[
    float | None, typer.Option("--budget-memory-gib", help="in place of --ratio: GiB that the weights take at most, in the base's dtype")
]
Tuner = Annotated[str, typer.Option(help="lora, dora, pat, pat-dora, or pat-g on what `pat prepare` writes")]
Pruner = Annotated[str, typer.Option(help="a method's name without -pft, -ftp or -ftpft; a wrong one is answered with all of them")]
TunedRatio = Annotated[float | None, typer.Option(help="share of the hidden size to prune; this or a budget")]
RatioOfTuner = Annotated[float | None, typer.Option(help=f"share of the hidden size to prune; {MASKED_NAMES} need it, or a budget")]
Teacher = Annotated[Path | None, typer.Option(help="folder of the tuned, unpruned model that tuning.distillation learns from"), READS]
CalibrationText = Annotated[Path, typer.Option(help="rows of any form to measure and fit on, as --data of `pat tune`"), READS]
CalibrationColumns = Annotated[
    list[str] | None,
    typer.Option("--calibration-column", help="ours=theirs: what a field of --calibration is called there; may be repeated"),
]
TextColumn = Annotated[str, typer.Option(help="the field of the rows that is the text")]
CalibrationTokens = Annotated[int | None, typer.Option(min=1, help="how much of the calibration text; as much as the papers by default")]
MeasuringDevice = Annotated[str, typer.Option(help="auto, cpu or cuda: where the measuring runs")]
Threads = Annotated[int, typer.Option(min=1, max=MOST_THREADS, help="CPU threads; results depend on them in the last digit")]
Tie = Annotated[str, typer.Option(help="keep or break: embedding and head, where they are one matrix")]
Tasks = Annotated[
    list[Path] | None,
    typer.Option(help="zero-shot set: JSONL, JSON or Parquet with question, choices and answer; may be repeated"),
    READS,
]
Align = Annotated[str, typer.Option(help="widths are multiples of lcm(heads, align); a number, 'auto', or 'gguf' for 256")]
SHAPE = typer.Option(help="a known shape (llama-2-7b, ...), or JSON or a file with one; weights are random")
Shape = Annotated[str | None, SHAPE, READS]
MeasuredShape = Annotated[str, SHAPE, READS]
Compile = Annotated[bool, typer.Option("--compile", help="torch.compile; the same as `compile: true` in the settings")]


def datasets_of(names: list[str] | None) -> tuple[str, ...]:
    """Return the data sets that are named. Raises UserError where the hub can have none of a name."""
    from pat.checkpoints.lineage import check_datasets

    check_datasets(names or ())
    return tuple(names or ())


def tie_of(tie: str) -> Literal["keep", "break"]:
    """Return what becomes of a head that is the embedding."""
    if tie not in ("keep", "break"):
        raise UserError(f"--tie {tie!r}: must be keep or break")
    return "break" if tie == "break" else "keep"


def ratio_of(
    tuner: str, base: Path, ratio: float | None, parameters: float | None, memory_gib: float | None, align: int | Literal["auto"]
) -> float:
    """Return the ratio that a tuner prunes at, or that a budget comes to; it has to be said, were it 0, where it prunes."""
    if tuner not in MASKED and (parameters is not None or memory_gib is not None):
        option = "--budget-parameters" if parameters is not None else "--budget-memory-gib"
        raise UserError(f"{option} with --tuner {tuner}: only {MASKED_NAMES} prune while they tune; leave it out")
    ratio = width_ratio_of(base, ratio, parameters, memory_gib, align)
    if ratio is None and tuner in MASKED:
        raise UserError(f"--tuner {tuner}: prunes while it tunes, so --ratio is needed, such as 0.25 of its channels, or a budget")
    return ratio or 0.0


def width_ratio_of(
    base: Path,
    ratio: float | None,
    parameters: float | None,
    memory_gib: float | None,
    align: int | Literal["auto"],
    *,
    untied: bool = False,
) -> float | None:
    """Return the share of the hidden size that is asked for, or that a budget comes to; None where neither is given."""
    from pat.checkpoints.budget import width_ratio
    from pat.pruners.budget import given_ratio

    asked = given_ratio(ratio, parameters, memory_gib)
    return None if asked is None else width_ratio(base, asked, align, untied=untied)


def needed(ratio: float | None) -> float:
    """Return a ratio. Raises UserError where there is none."""
    if ratio is None:
        raise UserError("--ratio is needed, or a budget: --budget-parameters or --budget-memory-gib")
    return ratio


def ridges_of(ridges: list[float] | None) -> tuple[float, ...]:
    """Return the ridges that --ridge names, none where it is not given. Raises UserError on one that is no ridge, or is given twice."""
    named = tuple(ridges or ())
    for ridge in named:
        if not 0 < ridge <= LARGEST_FACTOR:
            raise UserError(f"--ridge {ridge:g}: has to be above 0 and at most {LARGEST_FACTOR:g}")
    if len(set(named)) < len(named):
        raise UserError(f"--ridge {' '.join(f'{ridge:g}' for ridge in named)}: each only once")
    return named


def aligned(align: str) -> int | Literal["auto"]:
    """Return what widths are multiples of."""
    if align == "auto":
        return "auto"
    if align in ALIGN_NAMES:
        return ALIGN_NAMES[align]
    if not (align.isascii() and align.isdigit() and int(align) > 0):
        raise UserError(f"--align {align!r}: must be 'auto', {', '.join(map(repr, ALIGN_NAMES))} or a positive whole number")
    return int(align)


def columns_of(pairs: list[str] | None, option: str = "--column", *, data: Path | None) -> dict[str, str]:
    """Return what our fields are called in the file that an option is about. Raises UserError where there is no such file."""
    from pat.data.rows import parse_columns

    if pairs and data is None:
        raise UserError(f"{option} {pairs[0]}: has no effect without {'--data' if option == '--column' else '--calibration'}; leave it out")
    return parse_columns(pairs or [], option)


def measured_on(text: Path, tokens: int | None, seed: int, device: str, columns: list[str] | None = None) -> Calibration:
    """Return what a job measures on, and where; `columns` says what our fields of its rows are called there."""
    from pat.data.calibration import Calibration
    from pat.machine.device import resolve_device

    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"--device {device!r}: must be auto, cpu or cuda")
    return Calibration(text, tokens, seed, resolve_device(device), columns_of(columns, "--calibration-column", data=text) or None)
