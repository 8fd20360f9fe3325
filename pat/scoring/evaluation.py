"""`pat evaluate`: score one checkpoint on task and text files and write `evaluation.json` with a line per item beside it.

One load of the model serves the generated and the log-likelihood scoring, perplexity and lm-eval's own variants.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pat.data.files import name_of
from pat.data.harness_figures import without_errors
from pat.data.items import Item, first_of_each_group, read_items
from pat.data.prompts import first_capital_prompt
from pat.data.rows import naming, read_texts
from pat.errors import UserError
from pat.io import artefacts
from pat.io.marks import KINDS, check_replaceable, samples_path
from pat.io.progress import say, told_figure
from pat.io.provenance import provenance
from pat.machine.extras import need
from pat.machine.threads import threads_given_back, tokenizing_with
from pat.scoring.answers import Outcome, mean_over_tasks, task_figures
from pat.settings.jobs import EvaluationSettings

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@threads_given_back
def evaluate(
    model: Path,
    tasks: list[Path],
    texts: list[Path],
    settings: EvaluationSettings,
    seed: int,
    out: Path,
    *,
    text_column: str = "text",
    force: bool = False,
) -> None:
    """Write the checkpoint's figures to `out` and its answers to `samples_path(out)`.

    Raises UserError on broken inputs, settings that do not fit the model's context, or where one of the two is there already and holds
    something else, unless with `force`.
    """
    check_replaceable(out, KINDS["evaluate"], force=force)
    started = time.monotonic()
    if not (texts or settings.harness_tasks or (tasks and settings.scores_tasks)):
        unscored = "evaluation.generate and evaluation.log_likelihood are both false" if tasks else "give --task, --text or harness_tasks"
        raise UserError(f"nothing to evaluate: {unscored}")
    if tasks or settings.harness_tasks:
        need("evaluation", "evaluate, where it asks questions,")
    items = read_tasks(tasks, settings.limit, settings.group_limit)
    documents = read_documents(texts, text_column)
    with tokenizing_with(settings.threads):
        record, outcomes, device = _examine(model, items, documents, settings, seed)
    inputs = {"model": model} | {f"task {name_of(path)}": path for path in tasks} | {f"text {name_of(path)}": path for path in texts}
    record["provenance"] = provenance(settings.model_dump(mode="json") | naming(text_column), seed, device, inputs)
    record["wall_s"] = round(time.monotonic() - started, 3)
    artefacts.write_jsonl(samples_path(out), (outcome.row() for ones in outcomes.values() for outcome in ones))
    artefacts.write_json(out, record)
    say(_summary(record))


def _examine(
    folder: Path, items: Mapping[str, list[Item]], documents: Mapping[str, list[str]], settings: EvaluationSettings, seed: int
) -> tuple[dict[str, Any], dict[str, list[Outcome]], str]:
    """Return the record's figures, every item's outcome, and the device they were had on."""
    from pat.scoring.examinee import count_cut_items, load_examinee

    manager = _own_tasks(settings.harness_tasks) if settings.harness_tasks else None  # whose faults are told before hours of scoring
    model, tokenizer = load_examinee(folder, settings, seed)
    truncated = {name: count_cut_items(model, tokenizer, ones, settings) for name, ones in items.items()}
    perplexities = _perplexities(model, tokenizer, documents, settings)
    asks = bool(items or settings.harness_tasks)
    outcomes, cut, variants = _asked(model, tokenizer, items, settings, seed, manager) if asks else ({}, {}, {})
    figures = {
        name: task_figures(ones) | {"truncated_items": truncated[name]} | ({"cut_answers": cut[name]} if cut else {})
        for name, ones in outcomes.items()
    }
    say_what_was_cut(figures, settings.max_new_tokens)
    record = {
        "tasks": figures,
        "mean": mean_over_tasks(figures),
        "perplexity": perplexities,
        "harness": variants,
    }
    return record, outcomes, str(model.device)


def _own_tasks(names: Sequence[str]) -> TaskManager:
    from pat.scoring.harness import own_tasks

    return own_tasks(names)


def _asked(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    items: Mapping[str, list[Item]],
    settings: EvaluationSettings,
    seed: int,
    manager: TaskManager | None,
) -> tuple[dict[str, list[Outcome]], dict[str, dict[str, int]], dict[str, Any]]:
    """Return every item's outcome, the answers that were cut where some are generated, and the figures of lm-eval's tasks."""
    from pat.scoring import harness
    from pat.scoring.batched_lm import BatchedLM

    lm = BatchedLM(model, tokenizer, settings.batch_size)
    outcomes = harness.answers(
        lm, items, generate=settings.generate, log_likelihood=settings.log_likelihood, max_new_tokens=settings.max_new_tokens
    )
    cut = {name: cut_answers(lm.cut_prompts, ones) for name, ones in outcomes.items()} if settings.generate else {}
    variants = harness.harness_variants(lm, settings.harness_tasks, settings.limit, seed, manager) if settings.harness_tasks else {}
    return outcomes, cut, variants


def cut_answers(cut_prompts: Collection[str], outcomes: Sequence[Outcome]) -> dict[str, int]:
    """Return how many answers of a task had not ended at the most new tokens, and how many of these had named no choice by then."""
    cut = [one for one in outcomes if first_capital_prompt(one.item.question, one.item.choices) in cut_prompts]
    return {"all": len(cut), "without_choice": sum(one.predictions.get("first_capital") is None for one in cut)}


def say_what_was_cut(figures: Mapping[str, Mapping[str, Any]], max_new_tokens: int) -> None:
    """Tell in a line each of answers that were cut before they named a choice, and of items longer than the model's context."""
    items = sum(task["items"] for task in figures.values())
    wordless = sum(task.get("cut_answers", {}).get("without_choice", 0) for task in figures.values())
    if wordless:
        say(f"evaluate: {wordless} of {items} answers were cut at evaluation.max_new_tokens={max_new_tokens} before they named a choice")
    if longer := sum(task["truncated_items"] for task in figures.values()):
        say(f"evaluate: {longer} of {items} items are longer than the model's context and lose their beginning")


def _perplexities(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, documents: Mapping[str, list[str]], settings: EvaluationSettings
) -> dict[str, Any]:
    from pat.data.context import context_of
    from pat.data.text_limit import first_windows
    from pat.scoring.perplexity import perplexity

    if documents and settings.perplexity_context > context_of(model.config):
        raise UserError(
            f"evaluation.perplexity_context: {settings.perplexity_context}: must be at most the model's context, {context_of(model.config)}"
        )
    context = settings.perplexity_context
    scored = {name: first_windows(ones, tokenizer, context, settings.windows) for name, ones in documents.items()}
    return {name: perplexity(model, tokenizer, ones, context, settings.batch_size, name) for name, ones in scored.items()}


def read_tasks(paths: Sequence[Path], limit: int | None, group_limit: int | None = None) -> dict[str, list[Item]]:
    """Return the items of task files by task, as many as `first_of_each_group` keeps.

    Raises UserError on a broken file or a repeated task.
    """
    tasks: dict[str, list[Item]] = {}
    for path in paths:
        items = read_items(path)
        name = items[0].task
        if name in tasks:
            raise UserError(f"{path}: the task {name!r} is given twice")
        tasks[name] = first_of_each_group(items, limit, group_limit)
    return tasks


def read_documents(paths: Sequence[Path], column: str = "text") -> dict[str, list[str]]:
    """Return the documents of text files by the file's name. Raises UserError on a broken file, or two of one name."""
    documents: dict[str, list[str]] = {}
    for path in paths:
        name = name_of(path)
        if name in documents:
            raise UserError(f"{path}: the text {name!r} is given twice; texts are distinguished by their files' names")
        documents[name] = read_texts(path, column)
    return documents


def prepare_process(*, offline: bool) -> None:
    """Set what the libraries read while they are imported: no bars, and no network unless lm-eval's variants need it.

    For a process that does nothing else: the settings stay. `evaluate` itself reads local files alone, and leaves the environment as it is.
    """
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if offline:
        os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"


def _summary(record: Mapping[str, Any]) -> str:
    parts = [f"{metric} {value:.1%}" for metric, value in record["mean"].items()]
    for name, figures in record["perplexity"].items():
        parts.append(f"perplexity of {name} {told_figure(figures['token_perplexity'])}")
    for name, figures in record["harness"].items():
        parts += [f"lm-eval's {name} {measure} {value:.4f}" for measure, value in without_errors(figures["scores"]).items()]
    counted = [f"{len(record['tasks'])} task(s)", f"{len(record['perplexity'])} text(s)"]
    counted += [f"{len(record['harness'])} of lm-eval's own tasks"] if record["harness"] else []
    return f"evaluated {' and '.join(counted)}: {', '.join(parts)}"
