"""Model families as data: who writes to the residual stream, who reads it, which norms stand on it. No torch.

What a module of one's own needs to add a family is importable from here.
"""

from pat.families.blocks import Block, Experts, Reader
from pat.families.family import Family
from pat.families.known import FAMILIES, family_of, register

__all__ = ["FAMILIES", "Block", "Experts", "Family", "Reader", "family_of", "register"]
