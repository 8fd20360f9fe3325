"""Which rows the formats of runtimes can hold: what a hidden size must be a multiple of, and the names that stand for it. No torch.

A matrix that reads the stream has rows of the hidden size, so that a width that fits no block leaves most of the model unquantised.
"""

from __future__ import annotations

PLAIN_TYPES = ("f32", "f16", "bf16")
"""Types of a GGUF file that hold numbers as they are, in rows of any length."""
BLOCK_TYPES = ("q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
"""Types of a GGUF file that the `gguf` package can make; their rows are cut into blocks of BLOCK numbers."""
BLOCK = 32
"""What GGUF's block types and int4's smallest groups need of a row."""
K_BLOCK = 256
"""What llama.cpp's k-quants (q4_k_m and the like) need of a row."""
ALIGN_NAMES = {"gguf": K_BLOCK}
"""Names that stand for a number wherever `align` is set."""


def aligned_to(align: object) -> object:
    """Return the number that a name of `align` stands for, anything else as it is. Raises ValueError on a name that is none."""
    if isinstance(align, str) and align not in ("auto", *ALIGN_NAMES):
        raise ValueError(f"must be a positive whole number, 'auto' or {' or '.join(map(repr, ALIGN_NAMES))}")
    return ALIGN_NAMES.get(align, align) if isinstance(align, str) else align


def ruled_out(width: int) -> str | None:
    """Return what a hidden size rules out, as a clause with its reason; None where every format takes it."""
    if width % BLOCK:
        return f"no int4 and no quantised GGUF (q8_0, q4_0, …: what reads the stream stays in f16), as {width} is no multiple of {BLOCK}"
    if width % K_BLOCK:
        return f"no k-quants of llama.cpp (q4_k_m, …: it falls back to other types), as {width} is no multiple of {K_BLOCK}"
    return None
