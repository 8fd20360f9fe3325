"""How many threads torch and tokenizers work with: a job sets its own number, and whoever called the job gets back what there was."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
PARALLEL, WORKERS = "TOKENIZERS_PARALLELISM", "RAYON_NUM_THREADS"
"""What the tokenizers library reads at every call, and what it reads when it forms its threads."""


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


@contextmanager
def tokenizing_with(threads: int) -> Iterator[None]:
    """Let tokenizers encode texts side by side, in so many threads; ids do not depend on it.

    The number holds from a process's first call on, the library forms its threads once.
    """
    before = {name: os.environ.get(name) for name in (PARALLEL, WORKERS)}
    os.environ.update({PARALLEL: "true" if threads > 1 else "false", WORKERS: str(threads)})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
