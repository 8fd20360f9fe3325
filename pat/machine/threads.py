"""How many threads torch works with: a job sets its own number, and whoever called the job gets back what there was."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def threads_given_back(job: Callable[P, R]) -> Callable[P, R]:
    """Make a job leave torch's number of threads as it found it, however it ends."""

    @wraps(job)
    def kept(*arguments: P.args, **options: P.kwargs) -> R:
        import torch

        before = torch.get_num_threads()
        try:
            return job(*arguments, **options)
        finally:
            torch.set_num_threads(before)

    return kept
