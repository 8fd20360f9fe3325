"""What rounding does to fp32 tensors: how far neighbours lie apart, and roundings that fall either way at random.

Those show how much of a model rounding alone can change. An entry goes to one of its two neighbours, the likelier the nearer, so that on
average it stays; one that half precision holds stays as it is.
"""

from __future__ import annotations

import torch
from torch import Tensor

DIGITS = {"BF16": 8, "F16": 11, "F32": 24, "F64": 24}
"""Binary digits of a stored dtype's numbers, the one before the point among them; of fp64 what fp32 holds."""
SMALLEST_EXPONENT = {"BF16": -125, "F16": -13, "F32": -125, "F64": -125}
"""As torch.frexp counts it, of numbers that have all their digits; those below are as far apart as these."""
DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16}


def rounded_at_random(tensor: Tensor, stored: str, draw: torch.Generator) -> Tensor:
    """Return an fp32 tensor rounded to a stored dtype, as fp32; a copy of it where that dtype is not a half."""
    if stored not in DTYPES:
        return tensor.clone()
    near = tensor.to(DTYPES[stored])
    beyond = torch.nextafter(near, torch.where(tensor > near, torch.inf, -torch.inf).to(near.dtype)).float()
    near = near.float()
    share = (tensor - near).div_(beyond - near)  # of the way to the other neighbour
    return torch.where(torch.rand(tensor.shape, generator=draw) < share, beyond, near)


def nudged_at_random(tensor: Tensor, _stored: str, draw: torch.Generator) -> Tensor:
    """Return an fp32 tensor whose entries are off by one in their last digit, or as they were: as sums in another order leave them."""
    return tensor + steps_at(tensor, "F32").mul_(torch.randint(-1, 2, tensor.shape, generator=draw))


def steps_at(tensor: Tensor, stored: str) -> Tensor:
    """Return, for each entry of an fp32 tensor, how far the numbers of a stored dtype lie apart there."""
    exponents = torch.frexp(tensor)[1].clamp_(min=SMALLEST_EXPONENT[stored])
    return torch.ldexp(torch.ones_like(tensor), exponents - DIGITS[stored])
