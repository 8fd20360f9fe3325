"""Perplexity of a causal language model on held-out documents, per token and per UTF-8 byte.

The byte figure compares between tokenizers, the token figure only within one. Plain torch; nothing of lm-eval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pat.data.opening import opens_texts
from pat.errors import UserError
from pat.io.progress import Progress
from pat.models.token_loss import IGNORED_LABEL, cross_entropies, foretold_tokens, read

DIGITS = 4
"""Decimals of a document's loss in the record: of thousands of documents, it should not be larger than it needs to be."""
Window = tuple[list[int], list[int]]
"""Inputs and targets."""


def perplexity(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    documents: Sequence[str],
    context: int,
    batch_size: int,
    label: str,
) -> dict[str, Any]:
    """Return token and byte perplexity, the number of tokens and bytes, and each document's loss in nats and tokens, over windows of
    `context` tokens that do not overlap.

    Of a text that is one document the windows' losses and tokens are told as well: there is nothing else to estimate an error from.
    Each document stands alone. Its first token is predicted from BOS (EOS where there is no BOS), the first of a later window from the
    token before it, after BOS where the tokenizer opens texts with it; so every token and thus every byte is counted once
    (docs/evaluation.md says where lm-eval cuts otherwise). A figure beyond floating point is None.
    """
    windows = [_windows(tokenizer, document, context) for document in documents]
    tokens = [sum(map(_predicted, ones)) for ones in windows]
    if not any(tokens):
        raise UserError(f"text {label!r}: holds no token to predict")
    by_window = _window_losses(model, windows, batch_size, label)
    losses = [sum(ones) for ones in by_window]
    sizes = [len(document.encode()) for document in documents]
    text_bytes = sum(sizes)
    return {
        "token_perplexity": _exp(sum(losses) / sum(tokens)),
        "byte_perplexity": _exp(sum(losses) / text_bytes),
        "tokens": sum(tokens),
        "bytes": text_bytes,
        "documents": _told(losses, tokens) | {"bytes": sizes},
        **({"windows": _told(by_window[0], [_predicted(window) for window in windows[0]])} if len(windows) == 1 else {}),
    }


def _told(losses: Sequence[float], tokens: Sequence[int]) -> dict[str, Any]:
    return {"losses": [round(loss, DIGITS) for loss in losses], "tokens": list(tokens)}


def _windows(tokenizer: PreTrainedTokenizerBase, document: str, context: int) -> list[Window]:
    """Return (inputs, targets) pairs of equal length, at most `context`, that cover the document's tokens.

    Where the tokenizer opens every text with BOS, every window starts with it, and a later one goes on with the token before it.
    """
    tokens = tokenizer(document, add_special_tokens=False, verbose=False)["input_ids"]  # a document may be longer than a window
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if start is None:
        raise UserError("the model's tokenizer has neither BOS nor EOS, so a document's first token cannot be predicted")
    inputs = [start, *tokens[:-1]]
    first = (inputs[:context], tokens[:context])
    opening = [start] if opens_texts(tokenizer) else []
    step = context - len(opening)
    places = range(context, len(tokens), step)
    later = [(opening + inputs[at : at + step], [IGNORED_LABEL] * len(opening) + tokens[at : at + step]) for at in places]
    return [first, *later] if tokens else []


def _predicted(window: Window) -> int:
    """Return how many tokens a window predicts: all but the BOS that it opens with."""
    return sum(target != IGNORED_LABEL for target in window[1])


def _window_losses(model: PreTrainedModel, windows: Sequence[list[Window]], batch_size: int, label: str) -> list[list[float]]:
    """Return the summed cross-entropy in nats of each document's windows; those of like length share a batch."""
    placed = [(window, number, place) for number, ones in enumerate(windows) for place, window in enumerate(ones)]
    ordered = sorted(placed, key=lambda entry: len(entry[0][0]), reverse=True)
    progress = Progress(f"perplexity of {label}", len(ordered))
    losses = [[0.0] * len(ones) for ones in windows]
    progress.update(0)
    for start in range(0, len(ordered), batch_size):
        batch = ordered[start : start + batch_size]
        for (_, number, place), loss in zip(batch, _batch_losses(model, [window for window, *_ in batch]), strict=True):
            losses[number][place] = loss
        progress.update(min(start + batch_size, len(ordered)))
    progress.finish(f"{len(ordered)} windows done")
    if not math.isfinite(sum(map(sum, losses))):
        raise UserError(f"text {label!r}: the model gives it no finite likelihood: its weights are broken")
    return losses


@torch.inference_mode()
def _batch_losses(model: PreTrainedModel, windows: list[Window]) -> list[float]:
    """Return each window's loss. Padding is on the right, where a causal model never looks from, masked out of attention and loss."""
    length = len(windows[0][0])

    def padded(rows: list[list[int]], filler: int) -> Any:
        return torch.tensor([row + [filler] * (length - len(row)) for row in rows], device=model.device)

    inputs = padded([inputs for inputs, _ in windows], 0)
    mask = padded([[1] * len(inputs) for inputs, _ in windows], 0)
    targets = padded([targets for _, targets in windows], IGNORED_LABEL)
    hidden_BTD, head = read(model, model, {"input_ids": inputs, "attention_mask": mask})
    losses = cross_entropies(head, hidden_BTD, foretold_tokens(targets)).double().cpu()
    return [float(ones.sum()) for ones in losses.split([_predicted(window) for window in windows])]


def _exp(value: float) -> float | None:
    try:
        return math.exp(value)
    except OverflowError:
        return None
