"""`pat benchmark export`: bytes and perplexity of models in runtimes' formats, and whether a pruned one is better at equal bytes.

Each model is exported in each format into a folder that goes again, read again as the format holds it, and measured on the same text: a
GGUF file's weights by transformers in fp32, compressed ones by transformers as vLLM has them. So the question of every user gets its
figure: pruned and quantised, or only quantised?
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from pat.benchmark import machine, so_far
from pat.benchmark.equal_bytes import at_equal_bytes
from pat.benchmark.settings import ExportBenchmark
from pat.checkpoints import checkpoint
from pat.checkpoints.base_checks import check_base
from pat.checkpoints.origin import origin_of
from pat.data.rows import naming
from pat.errors import UserError
from pat.export.export import COMPRESSED, export
from pat.io.marks import KINDS, check_replaceable
from pat.io.progress import say, told_figure
from pat.io.provenance import described, provenance
from pat.machine.device import resolve_device
from pat.machine.extras import need
from pat.machine.threads import threads_given_back
from pat.scoring.evaluation import read_documents
from pat.scoring.perplexity import perplexity
from pat.settings.fields import MIB

SCHEMA = 1
STORED = "stored"
"""The model as its folder holds it."""
Point = dict[str, Any]


@threads_given_back
def benchmark_export(
    models: Sequence[Path],
    texts: Sequence[Path],
    settings: ExportBenchmark,
    seed: int,
    out: Path,
    *,
    text_column: str = "text",
    force: bool = False,
) -> dict[str, Any]:
    """Measure every model in every format, write the record to `out` and return it. The first model is the one compared with.

    Raises UserError where there are no models or texts, where a model is none that can be exported, and where a package is missing.
    """
    check_replaceable(out, KINDS["benchmark export"], force=force)
    if not models or not texts:
        raise UserError("--model and --text: give each once at least; the unpruned model first")
    names = names_of(models)
    for extra, formats in (("export", COMPRESSED), ("gguf", tuple(kind for kind in settings.formats if kind not in COMPRESSED))):
        if set(formats) & set(settings.formats):
            need(extra, f"benchmark export, for {' and '.join(kind for kind in settings.formats if kind in formats)},")
    for folder in models:
        check_base(folder, tokenizer=True)
    documents = {name: ones[: settings.documents] for name, ones in read_documents(texts, text_column).items()}
    torch.set_num_threads(settings.threads)
    device = resolve_device(settings.device)
    clocks_before = machine.clocks(device)
    points: list[Point] = []
    origins = {name: origin for name, folder in names.items() if (origin := origin_of(folder))}
    inputs = {f"model {name}": described(folder) for name, folder in names.items()} | {
        f"text {path.stem}": described(path) for path in texts
    }
    for name, folder in names.items():
        for form in (STORED, *settings.formats):
            points.append(_measured(name, folder, form, documents, settings, device))
            say(_line(points[-1]))
            record = _record(points) | machine.measured_on(device, clocks_before)
            record |= {"origins": origins} if origins else {}
            record["provenance"] = provenance(settings.model_dump(mode="json") | naming(text_column), seed, device, inputs)
            so_far.keep(record, out)
    so_far.finish(out)
    for it in record["at_equal_bytes"]:
        say(_verdict(it))
    return record


def names_of(models: Sequence[Path]) -> dict[str, Path]:
    """Return models by their folders' names; where two have one, by that of their paths in which they differ.

    Raises UserError where one is given twice.
    """
    whole = [folder.resolve() for folder in models]
    if twice := next((folder for place, folder in enumerate(whole) if folder in whole[:place]), None):
        raise UserError(f"--model {twice}: is given twice")
    names = [folder.name for folder in whole]
    if len(set(names)) < len(names):
        shortest = min(len(folder.parts) for folder in whole)
        behind = _shared([folder.parts[::-1] for folder in whole], shortest - 1)
        before = _shared([folder.parts for folder in whole], shortest - behind - 1)
        names = ["/".join(folder.parts[before : len(folder.parts) - behind]) for folder in whole]
    return dict(zip(names, models, strict=True))


def _shared(paths: Sequence[Sequence[str]], most: int) -> int:
    """Return how many parts all paths begin with, at most so many."""
    return next((place for place in range(most) if len({path[place] for path in paths}) > 1), most)


def _measured(name: str, folder: Path, form: str, documents: Mapping[str, list[str]], settings: ExportBenchmark, device: str) -> Point:
    """Return a model's bytes and perplexities in a format, or why it has none."""
    point: Point = {"model": name, "format": form, "hidden_size": checkpoint.load_config(folder).hidden_size}
    with tempfile.TemporaryDirectory() as scratch:
        try:
            bytes_, left, model = _read_again(folder, form, Path(scratch))
        except UserError as error:
            return point | {"refused": str(error)}
        model.to(torch.device(device))  # type: ignore[arg-type]  # transformers' annotation wraps nn.Module.to wrongly
        model.train(False)
        tokenizer = checkpoint.load_tokenizer(folder)
        context = min(settings.context, model.config.max_position_embeddings)
        found = {
            text: perplexity(model, tokenizer, ones, context, settings.batch_size, f"{text}, {name} in {form}")["token_perplexity"]
            for text, ones in documents.items()
        }
    return point | {"bytes": bytes_, "left_in_f16": left, "perplexity": found}


def _read_again(folder: Path, form: str, scratch: Path) -> tuple[int, int, PreTrainedModel]:
    """Return the bytes of a format's weights, how many matrices it could not quantise, and the model that it holds."""
    if form == STORED:
        return checkpoint.weights_size(folder), 0, checkpoint.load_model(folder, torch.float32)
    if form in COMPRESSED:
        record = export(folder, form, scratch / "out")
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(scratch / "out", dtype=torch.float32, trust_remote_code=False)
        return record["bytes"], 0, model
    from pat.checkpoints.gguf_import import import_gguf

    record = export(folder, "gguf", scratch / "out", form)
    import_gguf(scratch / "out" / record["file"], scratch / "again", "fp32")
    return record["bytes"], len(record["left_in_f16"]), checkpoint.load_model(scratch / "again", torch.float32)


def _record(points: Sequence[Point]) -> dict[str, Any]:
    return {"schema": SCHEMA, "kind": "export", "measurements": list(points), "at_equal_bytes": at_equal_bytes(points)}


def _line(point: Point) -> str:
    named = f"{point['model']}, {point['format']}"
    if "refused" in point:
        return f"{named}: {point['refused']}"
    left = f", {point['left_in_f16']} matrices left in f16" if point["left_in_f16"] else ""
    told = ", ".join(f"{name} {told_figure(value, '.3f')}" for name, value in point["perplexity"].items())
    return f"{named}: {point['bytes'] / MIB:.1f} MiB{left}, perplexity {told}"


def _verdict(it: Mapping[str, Any]) -> str:
    other = it["only_quantised"]
    beside = "no format of the first model is as small" if other is None else f"only quantised {other:.3f}"
    return f"{it['model']}, {it['format']}, {it['bytes'] / MIB:.1f} MiB: {it['text']} {it['perplexity']:.3f}, {beside}"
