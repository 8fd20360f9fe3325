"""Which tests start processes, by their own code, so that nobody has to mark them: they are left out of `make test-unit`."""

from __future__ import annotations

import inspect
import multiprocessing
import subprocess
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any

import pytest

STARTERS = (subprocess, multiprocessing)
"""What a test that uses it waits for costs seconds: another Python that imports torch, Snakemake, git."""


def starts_processes(item: pytest.Item) -> bool:
    """Return whether a test starts processes, or one of its fixtures in the same file does, or what they call of the tests' own."""
    module = vars(getattr(item, "module"))  # noqa: B009  # of functions alone, which all of ours are
    asked = [getattr(item, "function", None), *(module.get(name) for name in getattr(item, "fixturenames", ()))]
    return any(uses_starter(each) for each in asked if each is not None)


def uses_starter(named: Any, seen: set[int] | None = None) -> bool:
    """Return whether a function names a module that starts processes, or another function or class of the tests that does."""
    seen = set() if seen is None else seen
    if id(named) in seen:
        return False
    seen.add(id(named))
    if inspect.isclass(named) and named.__module__.startswith("tests."):
        return any(uses_starter(member, seen) for member in vars(named).values())
    function = inspect.unwrap(named) if callable(named) else named
    if not isinstance(function, FunctionType) or not function.__module__.startswith("tests."):
        return False
    found = [function.__globals__[name] for name in _names(function.__code__) if name in function.__globals__]
    return any(each in STARTERS for each in found if inspect.ismodule(each)) or any(uses_starter(each, seen) for each in found)


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _names(inner)
