"""How much calibration text is read where nobody says it, on paper: without torch, so that a scheduler can be told what it takes."""

from __future__ import annotations

SEQUENCE_LENGTH = 2048
SEQUENCES = 128
TOKENS_A_CHANNEL = 256
"""Narrow models need less text than SliceGPT's: its estimate is as good with as many tokens for each channel."""


def default_tokens(hidden_size: int) -> int:
    """Return how many tokens the statistics of a stream of so many channels are taken from, if the text has them."""
    return min(SEQUENCES * SEQUENCE_LENGTH, TOKENS_A_CHANNEL * hidden_size)
