"""The verbs that make a base ready before it is tuned: the work is in pat/bases/, in the modules of the same names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pat.io import marks
from pat.io.places import READS, Force, guarded
from pat.options import (
    Align,
    Base,
    BudgetMemory,
    BudgetParameters,
    CalibrationColumns,
    CalibrationText,
    CalibrationTokens,
    Columns,
    MeasuringDevice,
    Out,
    Ridges,
    Seed,
    Threads,
    Tie,
    TunedRatio,
    aligned,
    columns_of,
    measured_on,
    needed,
    ridges_of,
    tie_of,
    width_ratio_of,
)


@guarded("rotate")
def rotate(
    base: Base,
    basis: Annotated[str, typer.Option(help="pca or gradient")],
    calibration: CalibrationText,
    out: Out,
    tie: Tie = "keep",
    calibration_tokens: CalibrationTokens = None,
    calibration_column: CalibrationColumns = None,
    device: MeasuringDevice = "auto",
    threads: Threads = 1,
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Put a model into a basis whose leading directions matter most; writes a stock model that computes the same."""
    from pat.bases.rotate import rotate as run

    run(base, basis, measured_on(calibration, calibration_tokens, seed, device, calibration_column), out, threads, tie_of(tie), force=force)


@guarded("refit-readers")
def refit_readers(
    base: Base,
    mask: Annotated[str, typer.Option(help="the fixed mask that the model will be tuned with")],
    calibration: CalibrationText,
    out: Out,
    ratio: TunedRatio = None,
    budget_parameters: BudgetParameters = None,
    budget_memory_gib: BudgetMemory = None,
    data: Annotated[Path | None, typer.Option(help="the instruction set to be tuned on, for masks that are measured on it"), READS] = None,
    column: Columns = None,
    second_text: Annotated[Path | None, typer.Option(help="JSONL of other text, which only shows what the fit does to it"), READS] = None,
    ridge: Ridges = None,
    align: Align = "auto",
    calibration_tokens: CalibrationTokens = None,
    calibration_column: CalibrationColumns = None,
    device: MeasuringDevice = "auto",
    threads: Threads = 1,
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Fit the readers to do without the channels that will go, by least squares; writes a stock model of the same shape."""
    from pat.bases.reader_fit import RIDGES
    from pat.bases.refit import refit_readers as run

    text = measured_on(calibration, calibration_tokens, seed, device, calibration_column)
    asked = needed(width_ratio_of(base, ratio, budget_parameters, budget_memory_gib, aligned(align)))
    columns, ridges = columns_of(column, data=data), ridges_of(ridge) or RIDGES
    run(base, mask, asked, aligned(align), text, out, data, threads, second_text, ridges=ridges, columns=columns, force=force)


@guarded("prepare", marks.KINDS["refit-readers"])
def prepare(
    base: Base,
    calibration: CalibrationText,
    out: Out,
    ratio: TunedRatio = None,
    budget_parameters: BudgetParameters = None,
    budget_memory_gib: BudgetMemory = None,
    align: Align = "auto",
    tie: Tie = "keep",
    calibration_tokens: CalibrationTokens = None,
    calibration_column: CalibrationColumns = None,
    device: MeasuringDevice = "auto",
    threads: Threads = 1,
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Make a base ready for `pat tune --tuner pat-g`: rotate into the gradient basis, then refit the readers to the ratio."""
    from pat.bases.prepare import prepare_base as run

    text = measured_on(calibration, calibration_tokens, seed, device, calibration_column)
    untied = tie_of(tie) == "break"
    asked = needed(width_ratio_of(base, ratio, budget_parameters, budget_memory_gib, aligned(align), untied=untied))
    run(base, asked, text, out, aligned(align), threads, tie_of(tie), force=force)
