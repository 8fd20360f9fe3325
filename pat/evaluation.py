"""`pat evaluate`: score one checkpoint on task and text files and write `evaluation.json` with a line per item beside it.

One load of the model serves the generated and the log-likelihood scoring, perplexity and lm-eval's own variants.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pat import artefacts
from pat.errors import UserError
from pat.items import Item, first_of_each_group, read_items
from pat.progress import say
from pat.prompts import ANSWER_JOINT, first_capital_prompt, log_likelihood_prompt
from pat.provenance import provenance
from pat.scoring import mean_over_tasks, task_figures
from pat.settings import EvaluationSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


def evaluate(model: Path, tasks: list[Path], texts: list[Path], settings: EvaluationSettings, seed: int, out: Path) -> None:
    """Write the checkpoint's figures to `out` and its answers to `<out's stem>_samples.jsonl`.

    Raises UserError on broken inputs, or settings that do not fit the model's context.
    """
    started = time.monotonic()
    items = _read_tasks(tasks, settings.limit)
    documents = {path.stem: [str(row["text"]) for row in artefacts.read_jsonl(path, ["text"])] for path in texts}
    _prepare_process(settings)
    from pat import harness
    from pat.perplexity import perplexity

    loaded, tokenizer = _load(model, settings, seed)
    truncated = {name: _cut_items(loaded, tokenizer, ones, settings) for name, ones in items.items()}
    _check_perplexity_context(loaded, settings, documents)
    lm = harness.WatchedLM(loaded, tokenizer, settings.batch_size)
    outcomes = harness.answers(
        lm, items, generate=settings.generate, log_likelihood=settings.log_likelihood, max_new_tokens=settings.max_new_tokens
    )
    figures = {name: task_figures(ones) | {"truncated_items": truncated[name]} for name, ones in outcomes.items()}
    record = {
        "tasks": figures,
        "mean": mean_over_tasks(figures),
        "perplexity": {
            name: perplexity(loaded, tokenizer, ones, settings.perplexity_context, settings.batch_size, name)
            for name, ones in documents.items()
        },
        "harness": harness.harness_variants(lm, settings.harness_tasks, settings.limit, seed) if settings.harness_tasks else {},
        "provenance": provenance(settings.model_dump(mode="json"), seed, str(loaded.device)),
        "wall_s": round(time.monotonic() - started, 3),
    }
    artefacts.write_jsonl(samples_path(out), (outcome.row() for ones in outcomes.values() for outcome in ones))
    artefacts.write_json(out, record)
    say(_summary(record))


def samples_path(out: Path) -> Path:
    """Return where the answers to single items lie: beside the figures."""
    return out.with_name(f"{out.stem}_samples.jsonl")


def _read_tasks(paths: Sequence[Path], limit: int | None) -> dict[str, list[Item]]:
    tasks: dict[str, list[Item]] = {}
    for path in paths:
        items = read_items(path)
        name = items[0].task
        if name in tasks:
            raise UserError(f"{path}: the task {name!r} is given twice")
        tasks[name] = first_of_each_group(items, limit)
    return tasks


def _prepare_process(settings: EvaluationSettings) -> None:
    """Set what the libraries read from the environment while they are imported: no network unless lm-eval's variants need it, no bars."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not settings.harness_tasks:
        os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"


def _load(folder: Path, settings: EvaluationSettings, seed: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    import torch
    from transformers import AutoTokenizer

    from pat.checkpoint import load_model
    from pat.device import resolve_device

    artefacts.check_if_listed(folder)
    torch.set_num_threads(settings.threads)
    torch.manual_seed(seed)
    device = resolve_device(settings.device)
    model = load_model(folder, torch.float32 if settings.precision == "fp32" else torch.bfloat16)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: its tokenizer cannot be loaded: {error}") from None
    if tokenizer.eos_token_id is not None and tokenizer("a")["input_ids"][-1] == tokenizer.eos_token_id:
        raise UserError(
            f"{folder}: its tokenizer ends every text with EOS, so a prompt could not be continued; save it with that switched off"
        )
    torch.nn.Module.to(model, device)  # the subclass's own `to` has lost its types
    return model.eval(), tokenizer


def _cut_items(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, items: Sequence[Item], settings: EvaluationSettings) -> int:
    """Return how many items are longer than the model's context, of which lm-eval then drops the beginning.

    Raises UserError where the answer alone does not fit.
    """
    context = _context(model)
    if settings.generate and settings.max_new_tokens >= context:
        raise UserError(
            f"evaluation.max_new_tokens: {settings.max_new_tokens} leaves no room for a prompt; the model's context is {context}"
        )
    cut = [False] * len(items)
    if settings.generate:
        prompts = _lengths(tokenizer, [first_capital_prompt(item.question, item.choices) for item in items])
        cut = [length + settings.max_new_tokens > context for length in prompts]
    if settings.log_likelihood:
        longest = [max(item.choices, key=len) for item in items]
        answers = _lengths(tokenizer, [ANSWER_JOINT + choice for choice in longest])
        if max(answers) > context:
            raise UserError(f"task {items[0].task!r}: has a choice of {max(answers)} tokens and the model's context is {context}")
        whole = _lengths(
            tokenizer,
            [log_likelihood_prompt(item.question) + ANSWER_JOINT + choice for item, choice in zip(items, longest, strict=True)],
        )
        cut = [was or length > context + 1 for was, length in zip(cut, whole, strict=True)]
    if any(cut):
        logger.warning(
            "%s: %d of %d items exceed the context of %d tokens and lose their beginning",
            items[0].task,
            sum(cut),
            len(cut),
            context,
        )
    return sum(cut)


def _lengths(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[int]:
    return [len(tokens) for tokens in tokenizer(list(texts))["input_ids"]]


def _context(model: PreTrainedModel) -> int:
    return int(model.config.max_position_embeddings)


def _check_perplexity_context(model: PreTrainedModel, settings: EvaluationSettings, documents: Mapping[str, object]) -> None:
    if documents and settings.perplexity_context > _context(model):
        raise UserError(f"evaluation.perplexity_context: {settings.perplexity_context} is more than the model's context, {_context(model)}")


def _summary(record: Mapping[str, Any]) -> str:
    parts = [f"{metric} {value:.1%}" for metric, value in record["mean"].items()]
    parts += [f"perplexity of {name} {figures['token_perplexity']:.4g}" for name, figures in record["perplexity"].items()]
    return f"evaluated {len(record['tasks'])} task(s): {', '.join(parts)}"
