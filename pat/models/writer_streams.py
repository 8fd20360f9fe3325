"""How much text writers are refitted to, and what of the machine's memory its streams take meanwhile: on paper, without torch.

Held are, of all tokens, the whole model's stream, what it is inside a layer, and the pruned model's stream (held_stream.py).
"""

from __future__ import annotations

from itertools import pairwise

from pat.families.known import Family

LENGTH = 256
"""Tokens of a row of text."""
ROWS = 32
"""Worked through at once."""
TOKENS_AN_INPUT = 256
"""Of text for each input of the widest write. In a trial on SmolLM2-135M half as many cost 3.7 % of perplexity (docs/experiments.md)."""


def row_length(context: int) -> int:
    """Return how many tokens a row of text has for a model that reads so many."""
    return min(LENGTH, context)


def fewest_tokens(context: int) -> int:
    """Return how much text there has to be: a row to fit to and one to judge by."""
    return 2 * row_length(context)


def norms_inside(family: Family) -> tuple[str, ...]:
    """Return the norms inside a layer that are given what a write which can be fitted has left of the stream."""
    if family.parallel:
        return ()
    return tuple(block.norm for before, block in pairwise(family.blocks) if block.norm is not None and before.writes_linearly)


def default_tokens(widest: int) -> int:
    """Return how many tokens writers are refitted to where nobody says it and the text has them; `widest` are the inputs of a write."""
    return TOKENS_AN_INPUT * widest


def stream_bytes(family: Family, tokens: int, hidden_size: int, number_bytes: int, left: int) -> int:
    """Return what the streams take: of a hidden size, of which `left` channels are left, in numbers of so many bytes."""
    return tokens * number_bytes * ((1 + len(norms_inside(family))) * hidden_size + left)


def pinned_bytes(count: int, hidden_size: int, number_bytes: int) -> int:
    """Return what so many bytes of streams take beside a GPU, for which memory is had in powers of two: one a batch."""
    of_a_batch = ROWS * LENGTH * hidden_size * number_bytes
    return (count << (of_a_batch - 1).bit_length()) // of_a_batch
