"""The device a job runs on, and the memory it has held."""

from __future__ import annotations

import resource

import torch

from pat.errors import UserError


def resolve_device(name: str) -> str:
    """Return "cpu" or "cuda". Raises UserError where CUDA is asked for and not there."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device: 'cuda' is asked for, but torch finds no CUDA device; use 'cpu' or 'auto'")
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def peak_memory_gib() -> float:
    """Return the most memory this process has held: on the GPU where there is one, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
