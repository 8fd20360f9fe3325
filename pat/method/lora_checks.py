"""Whether LoRA's settings in an adapter's config can be: others would end deep in PEFT's code, or in a number that means nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from peft import LoraConfig

MOST = 2**31 - 1
Test = Callable[[Any], bool]


def _is_rank(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MOST


def _is_scale(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1


def _is_switch(value: Any) -> bool:
    return isinstance(value, bool)


def _is_pattern(value: Any) -> bool:
    """Return whether a value is a module's name or a regular expression of such, as which PEFT reads both."""
    try:
        return isinstance(value, str) and bool(value) and re.compile(value) is not None
    except (re.error, RecursionError, OverflowError):
        return False


def _names_modules(value: Any) -> bool:
    return _is_pattern(value) or (isinstance(value, list | tuple | set) and bool(value) and all(map(_is_pattern, value)))


def _of_modules(test: Test) -> Test:
    """Return the test of a pattern: nothing, or a mapping from modules to values that pass."""
    return lambda value: value is None or (isinstance(value, Mapping) and all(map(_is_pattern, value)) and all(map(test, value.values())))


def _is_layer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _or_nothing(test: Test) -> Test:
    """Return the test of what may be left out, as null or as a list of nothing."""
    return lambda value: value is None or value in ([], ()) or test(value)


def _names_layers(value: Any) -> bool:
    return _is_layer(value) or (isinstance(value, list | tuple) and all(map(_is_layer, value)))


ALLOWED: Mapping[str, tuple[Test, str]] = {
    "r": (_is_rank, "a positive whole number"),
    "lora_alpha": (_is_scale, "a number above 0"),
    "lora_dropout": (_is_share, "a number from 0 to below 1"),
    "use_dora": (_is_switch, "true or false"),
    "use_rslora": (_is_switch, "true or false"),
    "target_modules": (_names_modules, "a module's name or a list of such"),
    "exclude_modules": (_or_nothing(_names_modules), "a module's name or a list of such"),
    "layers_to_transform": (_or_nothing(_names_layers), "a layer's number or a list of such"),
    "layers_pattern": (_or_nothing(_names_modules), "a name or a list of such"),
    "rank_pattern": (_of_modules(_is_rank), "a mapping from modules to positive whole numbers"),
    "alpha_pattern": (_of_modules(_is_scale), "a mapping from modules to numbers above 0"),
}


def lora_problems(settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the settings that a fold and PEFT compute with; those that are not there have PEFT's defaults."""
    for name, (allowed, words) in ALLOWED.items():
        if name in settings and not allowed(settings[name]):
            yield f"{name}: {settings[name]!r}: must be {words}"


def disagreement(found: LoraConfig, expected: LoraConfig) -> str | None:
    """Return in which field an adapter's LoRA computes with something else than its run was given; None where it does in none.

    Which modules it is on its tensors say.
    """
    for name in (name for name in ALLOWED if name != "target_modules"):
        theirs, ours = (getattr(config, name) or None for config in (found, expected))
        if theirs != ours:
            return f"{name}: {theirs!r} is not what the run was given, {ours!r}"
    return None
