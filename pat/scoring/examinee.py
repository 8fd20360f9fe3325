"""A checkpoint made ready to be asked: loaded with its tokenizer, on its device, and its context held against what will be asked."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pat.checkpoints.base_checks import check_checkpoint
from pat.checkpoints.checkpoint import load_model, open_tokenizer
from pat.data.context import context_of
from pat.data.items import Item
from pat.data.prompts import ANSWER_JOINT, first_capital_prompt, log_likelihood_prompt
from pat.errors import UserError
from pat.io.artefacts import check_if_listed
from pat.machine.device import resolve_device
from pat.settings.jobs import EvaluationSettings

logger = logging.getLogger(__name__)


def load_examinee(folder: Path, settings: EvaluationSettings, seed: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return model and tokenizer in the precision and on the device asked for; sets torch's threads and seed.

    Raises UserError where the folder is incomplete or the tokenizer unfit.
    """
    check_checkpoint(folder, tokenizer=True)
    check_if_listed(folder)
    torch.set_num_threads(settings.threads)
    torch.manual_seed(seed)
    device = resolve_device(settings.device)
    model = load_model(folder, torch.float32 if settings.precision == "fp32" else torch.bfloat16)
    model.to(torch.device(device))  # type: ignore[arg-type]  # transformers' annotation wraps nn.Module.to wrongly
    return model, _load_tokenizer(folder)


def _load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    tokenizer = open_tokenizer(folder)
    if tokenizer.eos_token_id is None:
        raise UserError(f"{folder}: its tokenizer has no EOS token, so the end of an answer could not be recognised")
    if tokenizer("a")["input_ids"][-1] == tokenizer.eos_token_id:
        raise UserError(f"{folder}: its tokenizer ends every text with EOS, so a prompt could not be continued; switch that off")
    return tokenizer


def count_cut_items(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, items: Sequence[Item], settings: EvaluationSettings) -> int:
    """Return how many items are longer than the model's context, of which lm-eval then drops the beginning.

    Raises UserError where the answer alone does not fit.
    """
    context = context_of(model.config)
    cut = [False] * len(items)
    if settings.generate:
        if settings.max_new_tokens >= context:
            raise UserError(f"evaluation.max_new_tokens: {settings.max_new_tokens}: must be less than the model's context, {context}")
        prompts = _lengths(tokenizer, [first_capital_prompt(item.question, item.choices) for item in items])
        cut = [length + settings.max_new_tokens > context for length in prompts]
    if settings.log_likelihood:
        whole = _log_likelihood_lengths(tokenizer, items, context)
        cut = [was or length > context + 1 for was, length in zip(cut, whole, strict=True)]  # the last token is predicted, not read
    if any(cut):
        logger.warning("%s: %d of %d items exceed the context of %d tokens", items[0].task, sum(cut), len(cut), context)
    return sum(cut)


def _log_likelihood_lengths(tokenizer: PreTrainedTokenizerBase, items: Sequence[Item], context: int) -> list[int]:
    """Return each item's tokens with the choice of most tokens, which need not have most characters."""
    endings = [[ANSWER_JOINT + choice for choice in item.choices] for item in items]
    longest = max(_lengths(tokenizer, [end for own in endings for end in own]))
    if longest > context:
        raise UserError(f"task {items[0].task!r}: has a choice of {longest} tokens and the model's context is {context}")
    texts = [log_likelihood_prompt(item.question) + end for item, own in zip(items, endings, strict=True) for end in own]
    lengths = iter(_lengths(tokenizer, texts))
    return [max(islice(lengths, len(own))) for own in endings]


def _lengths(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[int]:
    return [len(tokens) for tokens in tokenizer(list(texts), verbose=False)["input_ids"]]
