"""The verbs for a model that is made: written for a runtime, sent to the hub, counted beside its base."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pat.io.marks import NOTHING
from pat.io.places import READS, Force, guarded
from pat.options import Base, Out


@guarded("export")
def export(
    model: Annotated[Path, typer.Option(help="folder of a stock model, such as `pat merge` writes"), READS],
    to: Annotated[str, typer.Option(help="gguf (llama.cpp, Ollama), or int8, int4 or fp8 (vLLM, transformers)")],
    out: Out,
    kind: Annotated[
        str | None, typer.Option("--type", help="of a GGUF file: auto (as stored), f32, f16, bf16, q8_0, q5_0, q4_0, …")
    ] = None,
    split: Annotated[str | None, typer.Option(help="llama.cpp's name of the tokenizer's rule, where pat does not know the rule")] = None,
    force: Force = False,
) -> None:
    """Write a model in the format of a runtime, quantised or as it is."""
    from pat.export.export import export as run

    run(model, to, out, kind, split, force=force)


@guarded("push", NOTHING)
def push(
    folder: Annotated[Path, typer.Argument(help="folder of a model, such as `pat merge` or `pat export` writes"), READS],
    repository: Annotated[str, typer.Argument(help="its name on the hub, as someone/some-model")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="tell what would be sent, and send nothing")] = False,
    evaluation: Annotated[
        Path | None, typer.Option(help="JSON of `pat evaluate` on this model, whose results the card shows"), READS
    ] = None,
    benchmark: Annotated[
        list[str] | None, typer.Option(help="task=DATASET:TASK: which benchmark of the hub a task is; may be repeated")
    ] = None,
    dataset: Annotated[
        list[str] | None, typer.Option(help="data set of the hub that it was trained on; left out: as its tuning was told; may be repeated")
    ] = None,
    language: Annotated[list[str] | None, typer.Option(help="language's code, such as en; may be repeated")] = None,
    license: Annotated[str | None, typer.Option(help="licence's identifier, such as apache-2.0; left out: the base's")] = None,
    base_model: Annotated[
        str | None,
        typer.Option(help="the base's name on the hub, of an export that of the model exported; left out: as the base was imported"),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="make the repository a private one where it is new; refused where it is there and public")
    ] = False,
    revision: Annotated[str, typer.Option(help="branch of the repository to send to, made where it is not there")] = "main",
) -> None:
    """Send a model to the hub with its card and results, or list what would be sent."""
    from pat.checkpoints.push import Published, pairs
    from pat.checkpoints.push import push as run

    benchmarks = pairs(benchmark or [], "--benchmark")
    published = Published(evaluation, dataset or (), language or (), license, base_model, benchmarks)
    for line in run(folder, repository, published, dry_run=dry_run, private=private, revision=revision):
        typer.echo(line)


@guarded("sizes")
def sizes(
    base: Base,
    model: Annotated[Path, typer.Option(help="folder of a model that was made elsewhere"), READS],
    out: Out,
    ratio: Annotated[float, typer.Option(min=0, max=1, help="the share it is said to be pruned by")] = 0.0,
    force: Force = False,
) -> None:
    """Count a model's parameters beside those of the base it is compared with; writes a JSON."""
    from pat.checkpoints.given_sizes import given_sizes as run

    run(base, model, ratio, out, force=force)
