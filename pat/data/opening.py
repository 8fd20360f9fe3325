"""How a text begins for a model: whether the tokenizer puts BOS before it by itself."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase


def opens_texts(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether the tokenizer puts BOS before every text by itself, as the model then always saw it."""
    return tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
