"""The verbs of `pat benchmark`: what each measures is in the module that it calls."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pat.io.places import READS, Force, guarded
from pat.io.verb import Verb
from pat.machine.extras import need
from pat.options import BudgetMemory, BudgetParameters, Compile, MeasuredShape, Out, Pruner, Seed, SettingsText, Shape, Tasks, TextColumn

benchmark = typer.Typer(no_args_is_help=True, help="Measure time and memory of models of a shape, random weights or your own.")


@benchmark.command("inference", cls=Verb)
@guarded("benchmark inference")
def benchmark_inference(
    out: Out,
    shape: Shape = None,
    model: Annotated[list[Path] | None, typer.Option(help="folder of a stock model; repeat it, the unpruned one first"), READS] = None,
    settings: SettingsText = "{}",
    compile_: Compile = False,
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Time to first token, decoding rate and memory against batch size; writes a JSON."""
    from pat.benchmark.inference import benchmark_inference as run
    from pat.benchmark.settings import InferenceBenchmark, shape_of
    from pat.settings.mistakes import load

    checked = load(InferenceBenchmark, settings)
    checked = checked.model_copy(update={"compile": checked.compile or compile_})
    run(shape_of(shape) if shape else None, model or [], checked, seed, out, force=force)


@benchmark.command("tune", cls=Verb)
@guarded("benchmark tune")
def benchmark_tune(
    shape: MeasuredShape,
    out: Out,
    settings: SettingsText = "{}",
    compile_: Compile = False,
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Step time and memory of LoRA and of PAT before and after the milestone; writes a JSON."""
    from pat.benchmark.settings import TuningBenchmark, shape_of
    from pat.benchmark.tuning import benchmark_tuning as run
    from pat.settings.mistakes import load

    checked = load(TuningBenchmark, settings)
    checked = checked.model_copy(update={"compile": checked.compile or compile_})
    run(shape_of(shape), checked, seed, out, force=force)


@benchmark.command("evaluation", cls=Verb)
@guarded("benchmark evaluation")
def benchmark_evaluation(
    out: Out,
    shape: Shape = None,
    model: Annotated[Path | None, typer.Option(help="folder of a stock model, to be asked the items of --task"), READS] = None,
    task: Tasks = None,
    settings: SettingsText = "{}",
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Items per second of an evaluation in batches, and whether its answers are those of lm-eval's `hf` one by one; writes a JSON."""
    from pat.scoring.evaluation import prepare_process

    need("evaluation", "benchmark evaluation")
    prepare_process(offline=True)
    from pat.benchmark.evaluation import benchmark_evaluation as run
    from pat.benchmark.settings import EvaluationBenchmark, shape_of
    from pat.settings.mistakes import load

    run(shape_of(shape) if shape else None, model, task or [], load(EvaluationBenchmark, settings), seed, out, force=force)


@benchmark.command("prune", cls=Verb)
@guarded("benchmark prune")
def benchmark_prune(
    shape: MeasuredShape,
    pruner: Pruner,
    out: Out,
    ratio: Annotated[float | None, typer.Option(help="share to prune, as `pat prune` takes it; this or a budget")] = None,
    budget_parameters: BudgetParameters = None,
    budget_memory_gib: BudgetMemory = None,
    settings: SettingsText = "{}",
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Time and peak memory of a pruner on a model of random weights; writes a JSON. The temporary folder has to hold three copies."""
    from pat.benchmark.folder_jobs import benchmark_prune as run
    from pat.benchmark.settings import PruneBenchmark, shape_of
    from pat.pruners.budget import given_ratio
    from pat.settings.mistakes import load

    asked = given_ratio(ratio, budget_parameters, budget_memory_gib)
    run(shape_of(shape), pruner, asked, load(PruneBenchmark, settings), seed, out, force=force)


@benchmark.command("merge", cls=Verb)
@guarded("benchmark merge")
def benchmark_merge(shape: MeasuredShape, out: Out, settings: SettingsText = "{}", seed: Seed = 0, force: Force = False) -> None:
    """Time and peak memory of a merge on a model and an adapter of random weights; writes a JSON."""
    from pat.benchmark.folder_jobs import benchmark_merge as run
    from pat.benchmark.settings import MergeBenchmark, shape_of
    from pat.settings.mistakes import load

    run(shape_of(shape), load(MergeBenchmark, settings), seed, out, force=force)


@benchmark.command("export")
@guarded("benchmark export")
def benchmark_export(
    model: Annotated[list[Path], typer.Option(help="folder of a stock model; repeat it, the unpruned one first"), READS],
    text: Annotated[list[Path], typer.Option(help="held-out text (JSONL); may be repeated"), READS],
    out: Out,
    text_column: TextColumn = "text",
    settings: SettingsText = "{}",
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Bytes and perplexity of models in the formats of runtimes: whether pruned and quantised beats only quantised; writes a JSON."""
    from pat.benchmark.exported import benchmark_export as run
    from pat.benchmark.settings import ExportBenchmark
    from pat.settings.mistakes import load

    run(model, text, load(ExportBenchmark, settings), seed, out, text_column=text_column, force=force)
