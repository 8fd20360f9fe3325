"""A row as token ids, with what of it is learned: of prompts the answer, of conversations what the assistant says, of texts all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from transformers import PreTrainedTokenizerBase

from pat.data.chat import encode_chat
from pat.data.rows import TOOLS, Row, prompt_and_answer

Encoded = tuple[list[int], bytearray]
"""Token ids, and for each 1 where it is learned."""


def encoded_rows(rows: Sequence[tuple[str, Row]], tokenizer: PreTrainedTokenizerBase) -> Iterator[Encoded]:
    """Yield the rows as tokens, in their order; those of prompt and answer are tokenized together."""
    pairs = [prompt_and_answer(row) for _, row in rows]
    answered = _answered([pair for pair in pairs if pair is not None], tokenizer)
    for (place, row), pair in zip(rows, pairs, strict=True):
        if pair is not None:
            yield next(answered)
        elif "messages" in row:
            yield encode_chat(tokenizer, row["messages"], place, row.get(TOOLS))
        else:
            ids = [*_without_end(tokenizer(row["text"])["input_ids"], tokenizer), tokenizer.eos_token_id]
            yield ids, bytearray([1]) * len(ids)


def _answered(pairs: Sequence[tuple[str, str]], tokenizer: PreTrainedTokenizerBase) -> Iterator[Encoded]:
    if not pairs:
        return
    prompts = tokenizer([prompt for prompt, _ in pairs])["input_ids"]
    texts = tokenizer([prompt + answer for prompt, answer in pairs])["input_ids"]
    for prompt_ids, text_ids in zip(prompts, texts, strict=True):
        ids = [*_without_end(text_ids, tokenizer), tokenizer.eos_token_id]
        length = _shared_start(_without_end(prompt_ids, tokenizer), ids)
        yield ids, bytearray(length) + bytearray([1]) * (len(ids) - length)


def _without_end(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Some tokenizers append the end token by themselves; it belongs after the answer only."""
    return ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids


def _shared_start(prompt_ids: list[int], ids: list[int]) -> int:
    """Return how many tokens of the prompt stand unchanged at the start of the whole text: a token may span the joint."""
    for position, (mine, whole) in enumerate(zip(prompt_ids, ids, strict=False)):
        if mine != whole:
            return position
    return min(len(prompt_ids), len(ids))
