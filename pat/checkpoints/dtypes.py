"""The dtypes that the weights of an imported model can be written in, by the names that users give them."""

from __future__ import annotations

import torch

from pat.errors import UserError

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def dtype_named(name: str) -> torch.dtype:
    """Return the dtype that `--dtype` names. Raises UserError where it names none."""
    if name not in DTYPES:
        raise UserError(f"--dtype {name!r}: must be one of {', '.join(DTYPES)}")
    return DTYPES[name]
