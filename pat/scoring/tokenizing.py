"""Texts as lm-eval's `hf` model tokenizes them one by one, many at a call: a call costs less, and tokenizers encode side by side.

What lm-eval asks of each text alone, whether it opens with BOS by itself, divides them; texts that are alike are encoded together, and
what becomes of a text does not depend on the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # lm-eval is an extra
    from lm_eval.models.huggingface import HFLM

TEXTS_AT_ONCE = 1024
"""An encoding of the tokenizers library holds far more than the ids that are taken from it."""


def tokens_of(lm: HFLM, texts: Iterable[str]) -> Iterator[list[int]]:
    """Yield what `lm.tok_encode` makes of each text."""
    if not lm.tokenizer.is_fast:  # such a one has no faster way
        return map(lm.tok_encode, texts)
    usual = {} if lm.add_bos_token is None else {"add_special_tokens": lm.add_bos_token}

    def encode(alike: Sequence[str], opened: bool) -> list[list[int]]:
        found: list[list[int]] = lm.tokenizer(list(alike), **{"add_special_tokens": False} if opened else usual)["input_ids"]
        return found

    return _in_portions(texts, lm.tokenizer.decode(lm.prefix_token_id), encode)


def prompts_of(lm: HFLM, texts: Iterable[str]) -> Iterator[list[int]]:
    """Yield what `lm.tok_batch_encode` makes of each text alone."""

    def encode(alike: Sequence[str], _opened: bool) -> list[list[int]]:
        ids, mask = lm.tok_batch_encode(list(alike))
        return [row[real].tolist() for row, real in zip(ids, mask.bool(), strict=True)]

    return _in_portions(texts, lm.tokenizer.bos_token, encode)


def _in_portions(
    texts: Iterable[str], opening: str | None, encode: Callable[[Sequence[str], bool], list[list[int]]]
) -> Iterator[list[int]]:
    """Yield the tokens of each text, some texts at a time: of these those that begin with `opening` are encoded by themselves."""
    texts = iter(texts)
    while portion := list(islice(texts, TEXTS_AT_ONCE)):
        opened = [opening is not None and text.startswith(opening) for text in portion]
        found: dict[int, list[int]] = {}
        for kind in set(opened):
            places = [place for place, one in enumerate(opened) if one is kind]
            found |= zip(places, encode([portion[place] for place in places], kind), strict=True)
        yield from (found[place] for place in range(len(portion)))
