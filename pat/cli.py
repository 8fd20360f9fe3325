"""The command line: one verb per phase. Takes files, writes files; the work is in the modules of the same names."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer

from pat import __version__
from pat.base_verbs import prepare, refit_readers, rotate
from pat.benchmark_verbs import benchmark
from pat.errors import UserError
from pat.io.places import READS, Force, guarded
from pat.io.progress import INTERRUPTED, fail, interrupted, note_traceback
from pat.io.storage import is_refusal, refusal
from pat.io.verb import Verb
from pat.machine import processes
from pat.machine.extras import need
from pat.machine.out_of_memory import memory_advice
from pat.model_verbs import export, push, sizes
from pat.options import (
    Align,
    Base,
    BudgetMemory,
    BudgetParameters,
    CalibrationColumns,
    CalibrationTokens,
    Columns,
    Data,
    Datasets,
    Encoded,
    MeasuringDevice,
    Out,
    Pruner,
    PruneSettingsText,
    RatioOfTuner,
    RunDir,
    Seed,
    SettingsText,
    Tasks,
    Teacher,
    TextColumn,
    Threads,
    Tuner,
    aligned,
    columns_of,
    datasets_of,
    measured_on,
    ratio_of,
)
from pat.settings.gpu_need import may_need_gpu
from pat.settings.limits import MOST_THREADS
from pat.study_verbs import HandedOver, hand_over

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)


AS_GIVEN = {"allow_extra_args": True, "ignore_unknown_options": True}
"""For verbs that hand their arguments over as they are."""


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pat {__version__}")
        raise typer.Exit()


Version = Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="show the version and end")]

app.add_typer(benchmark, name="benchmark")


@app.callback(invoke_without_command=True)
def whole(version: Version = False) -> None:
    pass


@app.command(context_settings=AS_GIVEN, add_help_option=False)
def validate(context: typer.Context) -> None:
    """Check an experiment file, and what it names on this disk: `study validate`."""
    hand_over("validate", context.args)


@app.command(context_settings=AS_GIVEN, add_help_option=False)
def explain(context: typer.Context) -> None:
    """Lead from a cell of an experiment's tables to the files and commands that made it: `study explain`."""
    hand_over("explain", context.args)


@app.command("import-model", cls=Verb)
@guarded("import-model")
def import_model(
    out: Out,
    path: Annotated[Path | None, typer.Option(help="local folder of a stock model"), READS] = None,
    hub: Annotated[str | None, typer.Option(help="model id on the hub; needs a network")] = None,
    revision: Annotated[str, typer.Option(help="branch, tag or commit on the hub")] = "main",
    gguf: Annotated[Path | None, typer.Option(help="GGUF file of a Llama-like model, with its tokenizer"), READS] = None,
    dtype: Annotated[str | None, typer.Option(help="bf16, fp16 or fp32: what weights become: of --gguf bf16, with --as as stored")] = None,
    as_class: Annotated[str | None, typer.Option("--as", help="phi: write a Pythia of --path as a Phi, of which channels can go")] = None,
    force: Force = False,
) -> None:
    """Bring a base model into the results folder, with checksums."""
    from pat.checkpoints import checkpoint

    if sum(place is not None for place in (path, hub, gguf)) != 1:
        raise UserError("give exactly one of --path, --hub and --gguf")
    if dtype is not None and gguf is None and as_class is None:
        raise UserError(f"--dtype {dtype}: goes with --gguf, or --as: other models keep the dtype of their checkpoint; leave it out")
    if as_class is not None:
        if as_class != "phi" or path is None:
            raise UserError(f"--as {as_class}: must be phi, and goes with --path, the folder of a Pythia")
        from pat.checkpoints.pythia import import_as_phi

        import_as_phi(path, out, dtype, force=force)
    elif path is not None:
        checkpoint.import_model(path, out, force=force)
    elif gguf is not None:
        need("gguf", "--gguf")
        from pat.checkpoints.gguf_import import import_gguf

        import_gguf(gguf, out, dtype, force=force)
    else:
        assert hub is not None
        checkpoint.fetch_model(hub, revision, out, force=force)


@app.command("fetch-tasks", cls=Verb)
@guarded("fetch-tasks")
def fetch_tasks(
    task: Annotated[list[str], typer.Option(help="one of lm-eval's own tasks; may be repeated")], out: Out, force: Force = False
) -> None:
    """Bring the data of lm-eval's own tasks (evaluation.harness_tasks) into the hub's cache; needs a network."""
    need("evaluation", "fetch-tasks")
    from pat.scoring.harness import fetch_variants

    fetch_variants(task, out, force=force)


@app.command(cls=Verb)
@guarded("pretrain")
def pretrain(
    corpus: Annotated[Path, typer.Option(help="rows with a `text` each: JSONL, JSON, CSV, Parquet or a saved set"), READS],
    settings: SettingsText,
    run_dir: RunDir,
    out: Out,
    text_column: TextColumn = "text",
    dataset: Datasets = None,
    force: Force = False,
) -> None:
    """Train a tokenizer and a small base model from scratch."""
    from pat.settings.jobs import PretrainSettings
    from pat.settings.mistakes import load
    from pat.training.pretraining import pretrain as run

    run(corpus, load(PretrainSettings, settings), run_dir, out, datasets_of(dataset), text_column=text_column, force=force)


@app.command(cls=Verb)
@guarded("encode")
def encode(
    base: Base,
    data: Data,
    max_length: Annotated[int, typer.Option(min=2, help="tokens of a row at most, as tuning.max_length of the tunings that read it")],
    out: Out,
    column: Columns = None,
    threads: Annotated[int, typer.Option(min=1, max=MOST_THREADS, help="CPU threads; results do not depend on them")] = 1,
    force: Force = False,
) -> None:
    """Turn rows into tokens, once for all tunings of a model; writes a folder for --encoded."""
    from pat.training.encode import encode as run

    run(base, data, max_length, out, columns_of(column, data=data), threads, force=force)


@app.command(cls=Verb)
@guarded("tune")
def tune(
    base: Base,
    data: Data,
    tuner: Tuner,
    settings: SettingsText,
    run_dir: RunDir,
    out: Out,
    ratio: RatioOfTuner = None,
    budget_parameters: BudgetParameters = None,
    budget_memory_gib: BudgetMemory = None,
    seed: Seed = 0,
    teacher: Teacher = None,
    column: Columns = None,
    dataset: Datasets = None,
    rate_from: Annotated[Path | None, typer.Option(help="rate.json of `pat search-rate`, where tuning.search is set"), READS] = None,
    encoded: Encoded = None,
    force: Force = False,
) -> None:
    """Tune a model with LoRA, DoRA or PAT; writes an adapter folder."""
    from pat.settings.jobs import TuneJob
    from pat.settings.mistakes import load
    from pat.training.request import TuningRequest
    from pat.training.search import with_searched_rate
    from pat.training.tuning import tune as run

    job = with_searched_rate(load(TuneJob, settings), rate_from)
    asked = ratio_of(tuner, base, ratio, budget_parameters, budget_memory_gib, job.pat.align)
    run(
        TuningRequest(
            base=base,
            data=data,
            columns=columns_of(column, data=data),
            datasets=datasets_of(dataset),
            tuner=tuner,
            ratio=asked,
            seed=seed,
            job=job,
            run_dir=run_dir,
            out=out,
            teacher=teacher,
            rate_from=rate_from,
            encoded=encoded,
            force=force,
        )
    )


@app.command("search-rate", cls=Verb)
@guarded("search-rate")
def search_rate(
    base: Base,
    data: Data,
    tuner: Tuner,
    settings: SettingsText,
    run_dir: RunDir,
    out: Out,
    ratio: RatioOfTuner = None,
    budget_parameters: BudgetParameters = None,
    budget_memory_gib: BudgetMemory = None,
    seed: Seed = 0,
    teacher: Teacher = None,
    column: Columns = None,
    encoded: Encoded = None,
    force: Force = False,
) -> None:
    """Try the learning rates of tuning.search on held-out rows; writes a rate.json."""
    from pat.settings.jobs import TuneJob
    from pat.settings.mistakes import load
    from pat.training.request import TuningRequest
    from pat.training.search import search_rate as run

    job = load(TuneJob, settings)
    asked = ratio_of(tuner, base, ratio, budget_parameters, budget_memory_gib, job.pat.align)
    run(
        TuningRequest(
            base=base,
            data=data,
            columns=columns_of(column, data=data),
            tuner=tuner,
            ratio=asked,
            seed=seed,
            job=job,
            run_dir=run_dir,
            out=out,
            teacher=teacher,
            encoded=encoded,
            force=force,
        )
    )


@app.command(cls=Verb)
@guarded("merge")
def merge(
    base: Base, adapter: Annotated[Path, typer.Option(help="adapter folder that `pat tune` wrote"), READS], out: Out, force: Force = False
) -> None:
    """Fold an adapter into its base and cut dead channels; writes a stock model."""
    from pat.checkpoints.merge import merge as run

    run(base, adapter, out, force=force)


@app.command(cls=Verb)
@guarded("prune")
def prune(
    base: Base,
    pruner: Pruner,
    out: Out,
    ratio: Annotated[
        float | None, typer.Option(help="share to prune: of the hidden size, or of all parameters where that stays; this or a budget")
    ] = None,
    budget_parameters: BudgetParameters = None,
    budget_memory_gib: BudgetMemory = None,
    align: Align = "auto",
    settings: PruneSettingsText = "{}",
    calibration: Annotated[Path | None, typer.Option(help="rows of any form, for pruners that measure on text"), READS] = None,
    calibration_tokens: CalibrationTokens = None,
    calibration_column: CalibrationColumns = None,
    device: MeasuringDevice = "auto",
    threads: Threads = 1,
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Prune a model without tuning it; writes a stock model, or a reshaped one where no stock class holds it."""
    from pat.pruners.budget import given_ratio
    from pat.pruners.pruning import prune as run
    from pat.settings.jobs import PruneSettings
    from pat.settings.mistakes import load

    columns_of(calibration_column, "--calibration-column", data=calibration)
    if calibration is None and calibration_tokens is not None:
        raise UserError(f"--calibration-tokens {calibration_tokens}: has no effect without --calibration; leave it out")
    text = measured_on(calibration, calibration_tokens, seed, device, calibration_column) if calibration else None
    own = load(PruneSettings, settings)
    asked = given_ratio(ratio, budget_parameters, budget_memory_gib)
    run(base, pruner, asked, aligned(align), out, text, threads, own, force=force)


for verb in (rotate, refit_readers, prepare):
    app.command(cls=Verb)(verb)


@app.command(cls=Verb)
@guarded("evaluate")
def evaluate(
    model: Annotated[Path, typer.Option(help="folder of a stock model"), READS],
    settings: SettingsText,
    out: Out,
    task: Tasks = None,
    text: Annotated[list[Path] | None, typer.Option(help="held-out text (JSONL); may be repeated"), READS] = None,
    text_column: TextColumn = "text",
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Score a model on zero-shot sets and held-out text."""
    from pat.scoring.evaluation import evaluate as run
    from pat.scoring.evaluation import prepare_process
    from pat.settings.jobs import EvaluationSettings
    from pat.settings.mistakes import load

    checked = load(EvaluationSettings, settings)
    if text_column != "text" and not text:
        raise UserError(f"--text-column {text_column}: has no effect without --text; leave it out")
    prepare_process(offline=not checked.harness_tasks)
    run(model, task or [], text or [], checked, seed, out, text_column=text_column, force=force)


@app.command(cls=Verb)
@guarded("tasks")
def tasks(
    task: Annotated[list[Path], typer.Option(help="zero-shot set, as `pat evaluate` takes it; may be repeated"), READS],
    out: Out,
    limit: Annotated[int | None, typer.Option(min=1, help="first items of every task, or of each of its groups")] = None,
    group_limit: Annotated[int | None, typer.Option(min=1, help="items of each group, where a task has some; left out: as --limit")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="tokens of a generated answer at most")] = 8,
    force: Force = False,
) -> None:
    """Write tasks as files that lm-eval runs by itself, with the numbers of `pat evaluate`."""
    from pat.scoring.task_files import write_task_files

    write_task_files(task, out, limit=limit, group_limit=group_limit, max_new_tokens=max_new_tokens, force=force)


for verb in (export, push, sizes):
    app.command(cls=Verb)(verb)


@cache
def command() -> Callable[..., Any]:
    """Return the command line as it is called, built once: a process that calls many verbs would spend most of their time on that."""
    return typer.main.get_command(app)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a user's mistake, or a file that the system refuses, is one message and status 1, never a traceback.

    Ctrl-C is one line and status 130.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    given = list(sys.argv[1:] if arguments is None else arguments)
    verb = next(iter(given), "")
    if verb != "tune" or not processes.launched():
        processes.stand_alone(gpu=may_need_gpu(given))
    try:
        command()(arguments)
    except SystemExit as ended:
        if ended.code != INTERRUPTED or isinstance(ended, HandedOver):
            raise
        interrupted(verb)
    except KeyboardInterrupt:
        interrupted(verb)
    except UserError as error:
        if not processes.is_main():  # a mistake is every process's, and told once
            sys.exit(1)
        fail(str(error))
    except (RuntimeError, MemoryError, OSError) as error:
        message = memory_advice(error, verb)
        if message is None and isinstance(error, OSError) and is_refusal(error, given):
            message = str(refusal(error))
        if message is None:
            note_traceback(error)
            raise
        fail(message)
    except Exception as error:
        note_traceback(error)
        raise


if __name__ == "__main__":
    main()
