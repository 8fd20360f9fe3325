"""YAML as a user means it: what the format's first version reads in a way that nobody expects is refused, not taken.

Owns reading and the wording of what is wrong with a file as YAML. Knows nothing of what stands in it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from pat.errors import UserError
from pat.io.artefacts import is_utf8, read_text

MERGE_TAG = "tag:yaml.org,2002:merge"
CLOCK = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")
OCTAL = re.compile(r"[-+]?0[0-7_]+")
TOO_DEEP = re.compile(r"(?:[\[{]\s*){1000}")
"""More levels than Python's own recursion allows, at which the parser arrives after seconds."""
MOST_NODES = 1_000_000
"""Aliases of aliases can make a file of a few lines larger than any memory."""


def read_yaml(path: Path) -> Any:
    """Return the parsed YAML (or JSON) file. Raises UserError where it is missing, is not YAML, or not what its writer can have meant."""
    return parse_yaml(read_text(path), str(path))


def parse_yaml(text: str, place: str) -> Any:
    """Return the parsed text. Raises UserError as `read_yaml` does, naming its `place`."""
    try:
        if TOO_DEEP.search(text):
            raise RecursionError
        value = yaml.load(text, _AsMeant)
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{place}: is not valid YAML ({' '.join(str(error).split())})") from None
    except RecursionError:
        raise UserError(f"{place}: is not valid YAML (nested too deeply)") from None
    if problem := _problem_of(value):
        raise UserError(f"{place}: is not valid YAML ({problem})")
    return value


def _problem_of(value: Any) -> str | None:
    """Return what keeps a parsed value from being used as a tree of plain values: loops, too much of it, text that is none."""
    nodes = 0
    waiting: list[tuple[Any, tuple[int, ...]]] = [(value, ())]
    while waiting:
        node, above = waiting.pop()
        nodes += 1
        if nodes > MOST_NODES:
            return "its aliases unfold to more than a million entries"
        if isinstance(node, str) and not is_utf8(node):
            return f"{ascii(node)[:60]} holds half of a surrogate pair, which is no text"
        if isinstance(node, dict | list):
            if id(node) in above:
                return "an alias leads back to what holds it"
            inner = [*node.keys(), *node.values()] if isinstance(node, dict) else node
            path = (*above, id(node))
            waiting += [(each, path) for each in inner]
    return None


class _AsMeant(yaml.SafeLoader):
    """YAML's safe loader, made to refuse equal keys, of which it takes the last, and numbers to a base that nobody sees."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[object] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != MERGE_TAG:
                if key.value in seen:
                    message = f"the key {key.value!r} stands twice in one mapping"
                    raise yaml.constructor.ConstructorError(None, None, message, key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> Any:
        """Return a number, unless it is one of minutes and seconds, or to the base 8."""
        kind = "int" if node.tag.endswith(":int") else "float"
        for pattern, meaning in ((CLOCK, "a number to the base 60"), (OCTAL, "a number to the base 8")):
            if pattern.fullmatch(node.value):
                read = getattr(super(), f"construct_yaml_{kind}")(node)
                message = f"{node.value} would be read as {read}, {meaning}: write that number, or put quotes around the text"
                raise yaml.constructor.ConstructorError(None, None, message, node.start_mark)
        return getattr(super(), f"construct_yaml_{kind}")(node)


for _kind in ("int", "float"):
    _AsMeant.add_constructor(f"tag:yaml.org,2002:{_kind}", _AsMeant.construct_number)
