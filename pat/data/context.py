"""How many tokens a model reads at most, held against what it is given."""

from __future__ import annotations

from typing import Any

from pat.data.instructions import Instructions
from pat.errors import UserError
from pat.io.progress import say


def context_of(config: Any) -> int:
    """Return how many tokens a model of this config reads at most."""
    return int(config.max_position_embeddings)


def check_context(rows: Instructions, context: int) -> None:
    """Raise UserError where a row is longer than the model's context; say so where the settings would have allowed one."""
    if rows.max_length <= context:
        return
    if beyond := rows.longer_than(context):
        raise UserError(
            f"tuning.max_length: {rows.max_length} is more than the model's context of {context} tokens, which {beyond} of "
            f"{len(rows)} rows of {rows.path} exceed; set it to {context} at most, which cuts them"
        )
    say(f"tune: tuning.max_length={rows.max_length} is more than the model's context of {context} tokens; no row is longer than that")
