"""`pat push`: the folder of a model or an export on the hub, with a card and results as the hub reads them. All can be listed first.

Owns what is sent: the folder's files but for its bookkeeping, its card with what an evaluation found, and a file of results for each
benchmark of the hub. Sending is hub.py's. The folder itself stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, eval_result_entries_to_yaml
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # documented, though not exported by name

from pat.checkpoints import checkpoint
from pat.checkpoints.base_checks import check_checkpoint
from pat.checkpoints.card import FIELDS, STOCK_CARD, front
from pat.checkpoints.checkpoint import check_finite
from pat.checkpoints.exported import CHANGED, EXPORT_RECORD, PACKAGE, Exported, export_in
from pat.checkpoints.hub import MAIN, RESULTS_FOLDER, check_token, send
from pat.checkpoints.lineage import CARD_NAME, INHERITED, check_datasets, front_matter, lineage_of
from pat.data.harness_figures import error_of, without_errors
from pat.errors import UserError
from pat.io import artefacts
from pat.io.progress import told_figure
from pat.io.provenance import checksums
from pat.models.reshaped import ReshapedConfig

SAFE = re.compile(r"[^A-Za-z0-9._-]")
READINGS = {
    "acc_norm": "log-likelihood per character",
    "acc": "log-likelihood",
    "first_capital": "first capital letter of a generated answer",
    "first_capital_word": "first capital letter that stands alone in a generated answer",
}
"""The metrics of an evaluation, the one first that stands for a task where there is one figure alone."""
HEAD_LINES = 2
"""Of a table without any results."""
LOADING = """
## How to load

```python
{imports}from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{name}"{its})
tokenizer = AutoTokenizer.from_pretrained("{name}"{its})
inputs = {says}
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=32)[0]))
```
"""
CHAT = """tokenizer.apply_chat_template(
    [{"role": "user", "content": "What is the capital of France?"}], add_generation_prompt=True, return_tensors="pt"
)"""
Sent = dict[str, Path | bytes]
"""Name in the repository → the file, or what is written for it."""


@dataclass(frozen=True)
class Published:
    """What a card says beyond what the folder knows: data sets, languages, licence, base, results, and the benchmarks that they are of.

    `benchmarks` maps a task to its data set on the hub, and to its task there after a colon: "allenai/ai2_arc:arc_easy".
    """

    evaluation: Path | None = None
    datasets: Sequence[str] = ()
    languages: Sequence[str] = ()
    license: str | None = None
    base_model: str | None = None
    benchmarks: Mapping[str, str] = field(default_factory=dict)


def pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    """Return names and values of texts "name=value". Raises UserError on one of another form, or a name that is there twice."""
    for text in texts:
        if not all(text.partition("=")):
            raise UserError(f"{option} {text!r}: must be task=DATASET:TASK, such as arc_easy=allenai/ai2_arc:ARC-Easy")
    names = [text.partition("=")[0] for text in texts]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"{option}: {twice} is given twice; one of the two would be lost")
    return dict(text.split("=", 1) for text in texts)


def push(folder: Path, repository: str, published: Published, *, dry_run: bool, private: bool = False, revision: str = MAIN) -> list[str]:
    """Send a folder to the hub in one commit, or with `dry_run` only tell what would be sent; returns that, a line a file.

    Raises UserError where the folder is no model or was changed, the name cannot be, there is no token, an evaluation is another model's,
    or the hub refuses.
    """
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise UserError(f"{repository!r} is no name of a repository, such as someone/some-model: {' '.join(str(error).split())}") from None
    check_datasets(published.datasets)
    if not dry_run:
        check_token(repository)
    files = files_to_send(folder, repository, published, revision)
    if not dry_run:
        send(repository, files, private=private, revision=revision)
    return [*_listed(files), *_notes(files, published)]


def files_to_send(folder: Path, repository: str, published: Published, revision: str = MAIN) -> Sent:
    """Return what is sent, by its name in the repository."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    exported = export_in(folder)
    if exported is None:
        check_checkpoint(folder, tokenizer=True)
    else:
        _check_of_export(repository, published)
    artefacts.check_if_listed(folder)
    if exported is None:
        check_finite(folder)
    scores = _scores(folder, published)
    kept = sorted(path for path in folder.rglob("*") if path.is_file() and not _is_bookkeeping(path.relative_to(folder)))
    files: Sent = {path.relative_to(folder).as_posix(): path for path in kept}
    files[CARD_NAME] = card(folder, repository, published, scores, revision, exported).encode()
    for task, benchmark in published.benchmarks.items():
        if task not in scores.get("tasks", {}):
            known = ", ".join(sorted(scores.get("tasks", {}))) or "none"
            raise UserError(f"--benchmark {task}={benchmark}: the evaluation has no task of this name; it has {known}")
        entries = eval_result_entries_to_yaml([entry(benchmark, scores["tasks"][task])])
        files[f"{RESULTS_FOLDER}/{SAFE.sub('-', task)}.yaml"] = yaml.safe_dump(entries, sort_keys=False).encode()
    return files


def _check_of_export(repository: str, published: Published) -> None:
    """Raise UserError where an export would take the place of the model it was made of, or is to have that model's results."""
    if published.base_model is not None and published.base_model.casefold() == repository.casefold():  # the hub's names are one in any case
        raise UserError(f"--base-model {repository}: an export is sent to a repository of its own, such as {repository}-GGUF")
    if published.evaluation is not None:
        raise UserError(
            f"--evaluation {published.evaluation}: is of the model before it was exported, and rounding changes its figures; leave it out"
        )


def card(
    folder: Path, repository: str, published: Published, scores: Mapping[str, Any], revision: str = MAIN, exported: Exported | None = None
) -> str:
    """Return the folder's card with everything that is known of the model, and with the results of an evaluation."""
    path = folder / CARD_NAME
    known = lineage_of(folder)
    if exported is None:
        own, text = FIELDS, f"\n# {repository}\n\n{STOCK_CARD}\n"
    else:
        named = published.base_model is not None
        base = published.base_model or known.get("base_model")
        own = exported.fields | ({"base_model_relation": exported.relation(named=named)} if base else {})
        text = exported.text(repository, base, named=named)
    written, body = front_matter(path.read_text(encoding="utf-8")) if path.is_file() else ({}, text)
    given = {
        "license": published.license,
        "base_model": published.base_model,
        "language": list(published.languages),
        "datasets": list(published.datasets),
    }
    fields = own | known | written | {name: value for name, value in given.items() if value}
    if published.license:
        fields = {name: value for name, value in fields.items() if name not in INHERITED or name in ("license", "language")}
    results = list(_results(scores, published.benchmarks))
    results_of_it = {"model_name": repository.rsplit("/", maxsplit=1)[-1], "eval_results": results} if results else {}
    if results:
        fields.pop("model-index", None)  # an earlier card's, which would win
    return front(fields | results_of_it) + body + _how_to_load(folder, repository, revision, exported) + _table(scores)


def _how_to_load(folder: Path, repository: str, revision: str, exported: Exported | None) -> str:
    """Return the lines that open the model and let it answer, in chat form where its tokenizer has one; of an export by its runtime."""
    by_runtime = "" if exported is None else exported.how_to_load(repository, None if revision == MAIN else revision)
    if exported is not None and exported.is_gguf:
        return by_runtime
    reshaped = isinstance(checkpoint.load_config(folder), ReshapedConfig)
    imports = "import pat.reshaped  # pip install pruning-aware-tuning\n" if reshaped else ""
    if exported is not None:
        imports = f"# pip install {PACKAGE}\n"
    chats = checkpoint.load_tokenizer(folder).chat_template is not None
    its = f', revision="{revision}"' if revision != MAIN else ""
    says = CHAT if chats else 'tokenizer("The capital of France is", return_tensors="pt")'
    return by_runtime + LOADING.format(imports=imports, name=repository, its=its, says=says)


def entry(benchmark: str, figures: Mapping[str, Any]) -> EvalResultEntry:
    """Return a task's result as the hub's benchmarks take it, in percent, by the metric that stands for the task."""
    identifier, _, its_task = benchmark.partition(":")
    metric = next(name for name in (*READINGS, *figures["scores"]) if name in figures["scores"])
    said = f"zero-shot, accuracy in percent by {READINGS.get(metric, metric)}, {figures['items']} items"
    return EvalResultEntry(identifier, its_task or "default", round(100 * figures["scores"][metric]["value"], 2), notes=said)


def _results(scores: Mapping[str, Any], benchmarks: Mapping[str, str]) -> Iterator[EvalResult]:
    for task, figures in scores.get("tasks", {}).items():
        kind = benchmarks.get(task, task).partition(":")[0]
        for metric, score in figures["scores"].items():
            yield EvalResult(
                task_type="text-generation", dataset_type=kind, dataset_name=task, metric_type="accuracy",
                metric_name=f"{metric} ({READINGS.get(metric, metric)})", metric_value=round(score["value"], 6),
            )  # fmt: skip
    for task, figures in scores.get("harness", {}).items():
        for name, value in without_errors(figures["scores"]).items():
            yield EvalResult(
                task_type="text-generation", dataset_type=task, dataset_name=task, metric_type=name.partition(",")[0],
                metric_name=f"{name} (lm-eval)", metric_value=round(value, 6),
            )  # fmt: skip
    for text, figures in scores.get("perplexity", {}).items():
        for measure in ("token_perplexity", "byte_perplexity"):
            if figures.get(measure) is not None:
                yield EvalResult(
                    task_type="text-generation", dataset_type=text, dataset_name=text, metric_type="perplexity",
                    metric_name=measure, metric_value=round(figures[measure], 6),
                )  # fmt: skip


def _table(scores: Mapping[str, Any]) -> str:
    tables = [table for table in (_of_tasks(scores), _of_texts(scores), _of_harness(scores)) if len(table) > HEAD_LINES]
    return "\n## Results\n\n" + "\n\n".join("\n".join(table) for table in tables) + "\n" if tables else ""


def _of_tasks(scores: Mapping[str, Any]) -> list[str]:
    tasks = scores.get("tasks", {})
    metrics = list(dict.fromkeys(metric for figures in tasks.values() for metric in figures["scores"]))
    lines = [_line("task, zero-shot", "items", "guessing", *metrics), _line(*["---"] * (3 + len(metrics)))]
    for name, figures in sorted(tasks.items()):
        known = {metric: f"{score['value']:.1%}" for metric, score in figures["scores"].items()}
        lines.append(_line(name, str(figures["items"]), f"{figures['chance']:.1%}", *(known.get(metric, "–") for metric in metrics)))
    return lines


def _of_texts(scores: Mapping[str, Any]) -> list[str]:
    lines = [_line("held-out text", "perplexity per token", "per byte"), _line("---", "---", "---")]
    for name, it in sorted(scores.get("perplexity", {}).items()):
        lines.append(_line(name, told_figure(it["token_perplexity"]), told_figure(it["byte_perplexity"])))
    return lines


def _of_harness(scores: Mapping[str, Any]) -> list[str]:
    """Return what lm-eval gave of its own tasks, by its own names of the figures."""
    lines = [_line("lm-eval's own task", "items", "figure", "value", "standard error"), _line(*["---"] * 5)]
    for name, it in sorted(scores.get("harness", {}).items()):
        for figure, value in sorted(without_errors(it["scores"]).items()):
            error = error_of(it["scores"], figure)
            lines.append(_line(name, str(it["items"] or "–"), figure, f"{value:.4f}", "–" if error is None else f"{error:.4f}"))
    return lines


def _line(*entries: str) -> str:
    """Return a line of a table of Markdown, which takes no stroke within an entry."""
    return f"| {' | '.join(entry.replace('|', chr(92) + '|') for entry in entries)} |"


def _scores(folder: Path, published: Published) -> Mapping[str, Any]:
    """Return an evaluation's figures; empty where none is given. Raises UserError where it is no evaluation, or of other weights."""
    if published.evaluation is None:
        return {}
    record = artefacts.read_record(published.evaluation)
    if missing := [name for name in ("tasks", "perplexity", "provenance") if name not in record]:
        raise UserError(f"{published.evaluation}: is no evaluation of `pat evaluate`: it lacks {', '.join(missing)}")
    scored = (record["provenance"].get("inputs") or {}).get("model") or {}
    if scored.get("sha256") != checksums(folder):
        raise UserError(f"{published.evaluation}: is of other weights than those in {folder} ({scored.get('path')}); evaluate this model")
    return record


def _is_bookkeeping(path: Path) -> bool:
    """Return whether a file is of use on this disk alone: the manifest, whose checksum of the card would be wrong, and what is hidden."""
    return path.name == artefacts.MANIFEST or any(part.startswith(".") for part in path.parts)


def _listed(files: Sent) -> list[str]:
    sizes = {name: len(it) if isinstance(it, bytes) else it.stat().st_size for name, it in sorted(files.items())}
    return [*(f"{size:>15,}  {name}" for name, size in sizes.items()), f"{sum(sizes.values()):>15,}  bytes in {len(sizes)} files"]


def _notes(files: Sent, published: Published) -> Iterator[str]:
    """Yield what a reader of the card will miss."""
    written = files[CARD_NAME]
    assert isinstance(written, bytes)
    fields, _ = front_matter(written.decode())
    options = {"license": "--license", "base_model": "--base-model", "language": "--language", "datasets": "--dataset"}
    if lacking := [option for name, option in options.items() if not fields.get(name)]:
        yield f"note: the card says nothing of what these would: {', '.join(lacking)}"
    if EXPORT_RECORD in files:
        if fields.get("base_model_relation") == CHANGED:
            yield (
                f"note: the card calls this a {CHANGED} of {fields['base_model']}, which was changed before the export: --base-model names "
                "the model that was exported, where the hub has it"
            )
    elif published.evaluation is None:
        yield "note: the card has no results: --evaluation names the JSON that `pat evaluate` wrote"
    elif not published.benchmarks:
        yield f"note: no {RESULTS_FOLDER}: --benchmark task=DATASET:TASK says which benchmark of the hub a task is"
