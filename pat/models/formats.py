"""Which rows the formats of runtimes can hold: what a hidden size must be a multiple of. No torch.

A matrix that reads the stream has rows of the hidden size, so that a width that fits no block leaves most of the model unquantised.
"""

from __future__ import annotations

from collections.abc import Iterator

PLAIN_TYPES = ("f32", "f16", "bf16")
"""Types of a GGUF file that hold numbers as they are, in rows of any length."""
BLOCK_TYPES = ("q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
"""Types of a GGUF file that the `gguf` package can make; their rows are cut into blocks of GGUF_BLOCK numbers."""
GGUF_BLOCK = 32
K_BLOCK = 256
"""What llama.cpp's k-quants and i-quants (q4_k_m, iq4_xs, …) need of a row."""
ALIGN_NAMES = {"gguf": K_BLOCK}
"""Names that stand for a number wherever `align` is set."""


def formats_ruled_out(width: int) -> list[str]:
    """Return what a hidden size rules out, one clause each; none where every format takes it."""
    return list(_ruled_out(width))


def _ruled_out(width: int) -> Iterator[str]:
    if width % GGUF_BLOCK:
        yield f"no multiple of {GGUF_BLOCK}, so that GGUF's q8_0, q4_0 and the like leave its rows in f16, and int4 is refused"
    elif width % K_BLOCK:
        yield f"no multiple of {K_BLOCK}, so that llama.cpp's k-quants (q4_k_m and the like) fall back to other types"
