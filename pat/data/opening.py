"""How a text begins for a model: the token that scoring puts before it, and whether the tokenizer puts it there by itself."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase


def opening_token(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the token from which a text's first one is predicted: BOS, else EOS; None where the tokenizer has neither."""
    start: int | None = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    return start


def opens_texts(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether the tokenizer puts BOS before every text by itself, as the model then always saw it."""
    return tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
