"""What decides how text is generated beside its prompt: what the caller says, and nothing that a model brings along.

A checkpoint's `generation_config` is its makers' advice for conversation (penalties, beams, stop strings, forced tokens). transformers lays
it under every call, whatever is asked for, so that "greedy" would mean something else for each base.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import GenerationConfig, PreTrainedModel


@contextmanager
def none_of_its_own(model: PreTrainedModel) -> Iterator[None]:
    """Take the model's own generation options away for a while; the special tokens, which say where a text ends, stay."""
    own = model.generation_config
    model.generation_config = GenerationConfig(bos_token_id=own.bos_token_id, eos_token_id=own.eos_token_id, pad_token_id=own.pad_token_id)
    try:
        yield
    finally:
        model.generation_config = own
